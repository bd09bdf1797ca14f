package compression

// Signs are counts of what a sample of a body shows, as EstimateRatio takes it,
// of at most 2.3 KB in less than a microsecond. They are whole numbers, computed
// without floating point, so that every machine sees the same signs in the same
// bytes: package adaptive decides by them.
type Signs struct {
	// Pairs of equal bytes among the 256 counted: 127 are expected of random ones,
	// 32,640 are all.
	Pairs uint16
	// Lanes are bytes equal to the one 4 or 8 further on, of 512 looked at; 2 are
	// expected of random ones.
	Lanes uint16
	// Plain are the spots of 16 bytes, of 32, that hold no byte above 127.
	Plain uint16
	// Near is how many of 192 positions in a row begin a word that stands earlier
	// in the row.
	Near uint16
	// Far is how many of Probes words, spread over the rest, stand in the row.
	Far, Probes uint16
}

// SignsOf looks at b. It is false, and the signs are zero, for less than 512
// bytes.
func SignsOf(b []byte) (Signs, bool) {
	if len(b) < estimateLeast {
		return Signs{}, false
	}
	s := sampleOf(b)
	return Signs{
		Pairs: uint16(s.pairs), Lanes: uint16(s.lanes), Plain: uint16(s.plain), // at most 32,640, 512, 32
		Near: uint16(s.near), Far: uint16(s.far), Probes: uint16(s.probes), // at most 192 each
	}, true
}
