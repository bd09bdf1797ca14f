package wire

import (
	"encoding/binary"
	"strconv"

	"github.com/portask/portask/broker/fault"
)

// PrefaceBytes is the length of what a client sends before its first frame:
//
//	0       4        6        8
//	┌───────┬────────┬────────┐
//	│ PTSK  │ lowest │highest │   versions u16, inclusive
//	└───────┴────────┴────────┘
//
// The broker does not answer it: the client's HELLO follows at once.
const PrefaceBytes = 8

const prefaceMagic = "PTSK"

// AppendPreface appends the preface of a client that speaks versions lowest to
// highest.
func AppendPreface(dst []byte, lowest, highest uint16) []byte {
	dst = append(dst, prefaceMagic...)
	dst = binary.LittleEndian.AppendUint16(dst, lowest)
	return binary.LittleEndian.AppendUint16(dst, highest)
}

// ParsePreface reads the preface at the start of src.
func ParsePreface(src []byte) (lowest, highest uint16, err error) {
	if len(src) < PrefaceBytes {
		return 0, 0, violation("preface", "length", "too short").WithLimit(int64(len(src)), PrefaceBytes)
	}
	if string(src[:4]) != prefaceMagic {
		return 0, 0, violation("preface", "magic", "not a Portask client: the first bytes are not \"PTSK\"")
	}
	lowest, highest = binary.LittleEndian.Uint16(src[4:]), binary.LittleEndian.Uint16(src[6:])
	if lowest == 0 || lowest > highest {
		return 0, 0, violation("preface", "versions", "not a range")
	}
	return lowest, highest, nil
}

// Negotiate returns the version to speak with a client of versions lowest to
// highest, or fault.VersionUnsupported.
func Negotiate(lowest, highest uint16) (uint16, error) {
	if lowest <= Version && Version <= highest {
		return Version, nil
	}
	return 0, fault.New(fault.VersionUnsupported, "preface").WithField("versions").
		WithDetail("the client speaks %d to %d, the broker %d to %d", lowest, highest, Version, Version)
}

// Kind is what the first bytes of a connection look like.
type Kind uint8

const (
	KindShort   Kind = iota // too few bytes to tell; never returned for 8 or more
	KindPortask             // a Portask preface may follow
	KindHTTP                // an HTTP request: answer HTTPAnswer and close
	KindTLS                 // a TLS hello: answer TLSAlert and close
	KindUnknown             // none of these: answer ERROR and close
)

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case KindShort:
		return "short"
	case KindPortask:
		return "portask"
	case KindHTTP:
		return "http"
	case KindTLS:
		return "tls"
	}
	return "unknown"
}

var openings = [...]struct {
	text string
	kind Kind
}{
	{prefaceMagic, KindPortask},
	{"\x16\x03", KindTLS}, // record type handshake, major version 3
	{"GET ", KindHTTP}, {"POST ", KindHTTP}, {"HEAD ", KindHTTP}, {"PUT ", KindHTTP}, {"DELETE ", KindHTTP},
	{"OPTIONS ", KindHTTP}, {"PATCH ", KindHTTP}, {"CONNECT ", KindHTTP}, {"TRACE ", KindHTTP},
	{"PRI * HT", KindHTTP}, // HTTP/2 with prior knowledge
}

// Detect tells from the first bytes of a connection what the peer speaks. No
// opening is longer than PrefaceBytes, so 8 bytes always decide.
func Detect(first []byte) Kind {
	kind := KindUnknown
	for i := range openings {
		o := &openings[i]
		n := min(len(o.text), len(first))
		if string(first[:n]) != o.text[:n] {
			continue
		}
		if n == len(o.text) {
			return o.kind
		}
		kind = KindShort
	}
	return kind
}

const httpBody = "This port speaks the Portask protocol, not HTTP.\n" +
	"Connect with a Portask client, for example: portask produce --help\n"

// HTTPAnswer is what an HTTP client is told before the connection is closed.
func HTTPAnswer() []byte {
	return []byte("HTTP/1.1 400 Bad Request\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\n" +
		"Content-Length: " + strconv.Itoa(len(httpBody)) + "\r\n" +
		"Connection: close\r\n\r\n" + httpBody)
}

// TLSAlert is what a TLS client is told before the connection is closed: a fatal
// handshake_failure in a record of TLS 1.2 (RFC 8446, sections 5.1 and 6), which
// every version understands.
//
//	0      1         3         5      6
//	┌──────┬─────────┬─────────┬──────┬──────┐
//	│ 21   │ 03 03   │ 00 02   │  2   │  40  │   alert, version, length (big-endian), fatal, description
//	└──────┴─────────┴─────────┴──────┴──────┘
func TLSAlert() []byte { return []byte{21, 3, 3, 0, 2, 2, 40} }
