package disklog

import (
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// unhex drops spaces and line breaks.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	check(t, err)
	return b
}

func dump(b []byte) string {
	var out strings.Builder
	for len(b) > 0 {
		n := min(16, len(b))
		out.WriteString(hex.EncodeToString(b[:n]) + "\n")
		b = b[n:]
	}
	return out.String()
}

func block(n int, put func(b []byte)) []byte {
	b := make([]byte, n)
	put(b)
	return b
}

// TestGolden ties every layout of FORMAT.md to its bytes.
func TestGolden(t *testing.T) {
	h := header{flags: flagZeroed | flagAttached, seed: 0x1122334455667788, id: testID, base: 0x0102030405, created: 1_700_000_000_000_000}
	tr := trailer{
		flags: flagSnapshot | flagRebuilt, seed: 0x1122334455667788, base: 5, end: 905, dataEnd: 3000, batches: 9,
		maxTime: 1_700_000_000_000_001, firstAppend: 1_700_000_000_000_002, lastAppend: 1_700_000_000_000_003,
		chain: 0xcafebabe, entries: 2, gaps: 1, snapshotBytes: 5, snapshotOffset: 905, footerBytes: 80, footerCRC: 0xdeadbeef,
	}
	r := record{
		clean: true, sequence: 7, epoch: 3, start: 100, durable: 2000, segBase: 1500, segSeed: 0x1122334455667788,
		pos: 0x8899, id: testID, written: 1_700_000_000_000_004,
	}
	e := entry{off: 0x0102030405060708, pos: 0x11121314, before: 0x21222324, maxBefore: -2}
	g := gap{from: 3, next: 0x0102030405060708, pos: 0x11121314, len: 0x21222324}
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"header", block(headerBytes, h.put), goldenHeader},
		{"trailer", block(trailerBytes, tr.put), goldenTrailer},
		{"record", block(recordBytes, r.put), goldenRecord},
		{"entry", block(entryBytes, e.put), goldenEntry},
		{"gap", block(gapBytes, g.put), goldenGap},
		{"metadata", appendMeta(nil, []byte("blob")), goldenMeta},
		{"snapshot", appendSnapshot(nil, 905, []byte("state")), goldenSnapshot},
		{"FORMAT", []byte(formatLine(1)), goldenFormat},
	} {
		if string(c.got) != string(unhex(t, c.want)) {
			t.Errorf("%s is\n%s", c.name, dump(c.got))
		}
	}
	var h2 header
	check(t, h2.parse(unhex(t, goldenHeader)))
	var t2 trailer
	check(t, t2.parse(unhex(t, goldenTrailer), 4096))
	var r2 record
	check(t, r2.parse(unhex(t, goldenRecord)))
	var e2 entry
	e2.parse(unhex(t, goldenEntry))
	var g2 gap
	g2.parse(unhex(t, goldenGap))
	if h2 != h || t2 != tr || r2 != r || e2 != e || g2 != g {
		t.Errorf("read back: %+v %+v %+v %+v %+v", h2, t2, r2, e2, g2)
	}
	blob, err := parseMeta(unhex(t, goldenMeta))
	if err != nil || string(blob) != "blob" {
		t.Errorf("metadata: %q, %v", blob, err)
	}
	below, state, err := parseSnapshot(unhex(t, goldenSnapshot))
	if err != nil || below != 905 || string(state) != "state" {
		t.Errorf("snapshot: %d %q, %v", below, state, err)
	}
}

// TestReserved: a later version is refused as such; reserved bits and numbers
// that contradict each other are damage, though the checksum holds.
func TestReserved(t *testing.T) {
	seal := func(b []byte, at int, v byte) []byte {
		b = append([]byte(nil), b...)
		b[at] = v
		sealCRC(b)
		return b
	}
	hd, tr, rec := unhex(t, goldenHeader), unhex(t, goldenTrailer), unhex(t, goldenRecord)
	parse := map[string]func(b []byte) error{
		"header":  func(b []byte) error { return new(header).parse(b) },
		"trailer": func(b []byte) error { return new(trailer).parse(b, 4096) },
		"record":  func(b []byte) error { return new(record).parse(b) },
	}
	for _, c := range []struct {
		what string
		b    []byte
		want fault.Code
	}{
		{"header", seal(hd, 4, 2), fault.NewerFormat},
		{"trailer", seal(tr, 4, 2), fault.NewerFormat},
		{"record", seal(rec, 4, 2), fault.NewerFormat},
		{"header", seal(hd, 6, 7), fault.Corrupted},
		{"header", seal(hd, 36, 1), fault.Corrupted},
		{"header", seal(hd, 56, 1), fault.Corrupted},
		{"header", seal(hd, 47, 0x80), fault.Corrupted},
		{"header", seal(hd, 6, 1), fault.Corrupted}, // a spare with a base offset
		{"trailer", seal(tr, 6, 4), fault.Corrupted},
		{"trailer", seal(tr, 100, 1), fault.Corrupted},
		{"trailer", seal(tr, 33, 0xff), fault.Corrupted}, // data end behind the file
		{"trailer", seal(tr, 68, 3), fault.Corrupted},    // more entries than fit the footer
		{"record", seal(rec, 6, 2), fault.Corrupted},
		{"record", seal(rec, 300, 1), fault.Corrupted},
		{"record", seal(rec, 33, 0), fault.Corrupted}, // durable before segment
	} {
		err := parse[c.what](c.b)
		if fault.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
}

// TestFooterRoundTrip writes footers of many shapes and reads them back.
func TestFooterRoundTrip(t *testing.T) {
	for n := range 40 {
		s := &segment{base: 10, seed: 99, contents: newContents(10)}
		head := make([]byte, message.EnvelopeBytes)
		for i := range n {
			head[32] = byte(i)
			s.add(head, s.pos, s.pos+5000, s.end, s.end+3, int64(i), int64(100-i))
		}
		if n%3 == 1 {
			s.gaps = []gap{{from: s.end, next: s.end + 4, pos: uint32(s.pos), len: 77}}
			s.end += 4
		}
		var snap []byte
		if n%2 == 1 {
			snap = []byte("abcdefghij")[:n%7]
		}
		b := appendFooter(nil, s, snap, s.end, 0)
		file := append(make([]byte, s.pos), b...)
		size := int64(len(file))
		f := bytesAt(file)
		tr, err := readTrailer(f, size)
		check(t, err)
		ft, err := readFooter(f, size, &tr)
		check(t, err)
		if tr.end != s.end || int64(tr.dataEnd) != s.pos || tr.chain != s.chain || tr.batches != uint32(n) || tr.maxTime != s.maxTime ||
			len(ft.entries) != len(s.entries) || !reflect.DeepEqual(ft.gaps, append([]gap{}, s.gaps...)) ||
			string(ft.snapshot) != string(snap) || (tr.flags&flagSnapshot != 0) != (n%2 == 1) {
			t.Fatalf("%d batches: %+v %+v", n, tr, ft)
		}
	}
}

// bytesAt is a file in memory.
type bytesAt []byte

func (b bytesAt) ReadAt(p []byte, off int64) (int, error) {
	return strings.NewReader(string(b)).ReadAt(p, off)
}

// TestIndexStaysSmall: an index of any number of batches has few entries, in
// which every batch is found near.
func TestIndexStaysSmall(t *testing.T) {
	var x index
	pos := uint32(headerBytes)
	for i := range 700_000 {
		x.add(entry{off: message.Offset(i), pos: pos, before: uint32(i)})
		pos += 96
	}
	if len(x.entries) > maxEntries || len(x.entries) < maxEntries/2-1 {
		t.Errorf("%d entries", len(x.entries))
	}
	for i := 1; i < len(x.entries); i++ {
		if d := x.entries[i].pos - x.entries[i-1].pos; d > 2*x.every {
			t.Fatalf("entry %d is %d bytes behind the last", i, d)
		}
	}
	for _, off := range []message.Offset{0, 1, 350_000, 699_999} {
		if e := x.entries[lastAtOffset(x.entries, off)]; e.off > off || off-e.off > message.Offset(2*x.every/96+1) {
			t.Errorf("offset %d is looked for from %d", off, e.off)
		}
	}
}
