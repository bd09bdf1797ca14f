package message

import (
	crand "crypto/rand"
	"encoding/hex"

	"github.com/portask/portask/broker/fault"
)

// The headers of W3C Trace Context (Recommendation of 23 November 2021), under
// the names that other systems know them by.
const (
	HeaderTraceParent = "traceparent"
	HeaderTraceState  = "tracestate"
)

// Trace says which trace a message belongs to, and which span of it sent the
// message. A receiver makes its own spans children of Span.
type Trace struct {
	ID    [16]byte
	Span  [8]byte
	Flags byte   // bit 0: sampled; the others are passed on
	State string // of vendors; passed on as it is
}

// NewTrace begins a trace, sampled, with a first span. The randomness is the
// operating system's.
func NewTrace() Trace {
	t := Trace{Flags: 1}
	crand.Read(t.ID[:]) // never fails: see crypto/rand
	return t.Child()
}

// Child is the same trace with a new span, to be sent with what follows from t.
func (t Trace) Child() Trace {
	for t.Span = [8]byte{}; t.Span == [8]byte{}; {
		crand.Read(t.Span[:])
	}
	if t.ID == [16]byte{} { // zero is none
		t.ID[15] = 1
	}
	return t
}

// The form of version 00, the only one there is:
//
//	00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
//	version, trace id, span id, flags; hexadecimal in small letters
const traceParentBytes = 2 + 1 + 32 + 1 + 16 + 1 + 2

// AppendText appends the value of traceparent.
func (t Trace) AppendText(dst []byte) ([]byte, error) {
	dst = hex.AppendEncode(append(dst, "00-"...), t.ID[:])
	dst = hex.AppendEncode(append(dst, '-'), t.Span[:])
	return hex.AppendEncode(append(dst, '-'), []byte{t.Flags}), nil
}

// String is the value of traceparent.
func (t Trace) String() string {
	b, _ := t.AppendText(make([]byte, 0, traceParentBytes)) // never fails
	return string(b)
}

// parseTraceParent reads a traceparent of version 00, or the part of a later
// version that is the same; ok is false for what the Recommendation says is to
// be ignored.
func parseTraceParent(b []byte) (t Trace, ok bool) {
	if len(b) < traceParentBytes || b[2] != '-' || b[35] != '-' || b[52] != '-' {
		return Trace{}, false
	}
	var version, flags [1]byte
	ok = lowerHex(version[:], b[:2]) && lowerHex(t.ID[:], b[3:35]) && lowerHex(t.Span[:], b[36:52]) && lowerHex(flags[:], b[53:55])
	t.Flags = flags[0]
	switch v := version[0]; {
	case !ok || v == 0xff || t.ID == [16]byte{} || t.Span == [8]byte{}:
		return Trace{}, false
	case len(b) > traceParentBytes && (v == 0 || b[traceParentBytes] != '-'):
		return Trace{}, false
	}
	return t, true
}

// lowerHex decodes hexadecimal digits, of which capitals are none.
func lowerHex(dst, src []byte) bool {
	for _, c := range src {
		if 'A' <= c && c <= 'F' {
			return false
		}
	}
	_, err := hex.Decode(dst, src)
	return err == nil
}

// Trace returns the trace context that came with the message. Errors as of the
// typed accessors; one that the Recommendation tells receivers to ignore is
// fault.Invalid.
func (h Headers) Trace() (Trace, error) {
	b, err := h.Bytes(HeaderTraceParent)
	if err != nil {
		return Trace{}, err
	}
	t, ok := parseTraceParent(b)
	if !ok {
		return Trace{}, misread(HeaderTraceParent, b, "a trace context")
	}
	if t.State, err = h.Text(HeaderTraceState); err != nil && err != error(fault.NotFound) {
		return Trace{}, err
	}
	return t, nil
}

// SetTrace sends t with the message.
func (h *Headers) SetTrace(t Trace) {
	b, _ := t.AppendText(make([]byte, 0, traceParentBytes)) // never fails
	h.SetBytes(HeaderTraceParent, b)
	if t.State == "" {
		h.Remove(HeaderTraceState)
		return
	}
	h.SetText(HeaderTraceState, t.State)
}
