package message

import (
	"testing"
	"unsafe"
)

// What every message has comes first and fills one cache line with the value;
// what most leave empty fills the second.
func TestLayout(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("the layout is meant for 64 bits")
	}
	const line = 64
	var m Message
	if n := unsafe.Sizeof(m); n != 2*line {
		t.Errorf("a message takes %d bytes, want two cache lines", n)
	}
	for _, f := range []struct {
		name   string
		offset uintptr
		size   uintptr
		want   uintptr
	}{
		{"Offset", unsafe.Offsetof(m.Offset), unsafe.Sizeof(m.Offset), 0},
		{"Timestamp", unsafe.Offsetof(m.Timestamp), unsafe.Sizeof(m.Timestamp), 8},
		{"ID", unsafe.Offsetof(m.ID), unsafe.Sizeof(m.ID), 16},
		{"Priority", unsafe.Offsetof(m.Priority), unsafe.Sizeof(m.Priority), 32},
		{"Encoding", unsafe.Offsetof(m.Encoding), unsafe.Sizeof(m.Encoding), 33},
		{"Value", unsafe.Offsetof(m.Value), unsafe.Sizeof(m.Value), 40},
		{"Key", unsafe.Offsetof(m.Key), unsafe.Sizeof(m.Key), 64},
		{"Headers", unsafe.Offsetof(m.Headers), unsafe.Sizeof(m.Headers), 88},
		{"DueTime", unsafe.Offsetof(m.DueTime), unsafe.Sizeof(m.DueTime), 112},
		{"Expiry", unsafe.Offsetof(m.Expiry), unsafe.Sizeof(m.Expiry), 120},
	} {
		if f.offset != f.want {
			t.Errorf("%s stands at %d, want %d", f.name, f.offset, f.want)
		}
		if f.offset/line != (f.offset+f.size-1)/line {
			t.Errorf("%s lies across two cache lines", f.name)
		}
	}
	if end := unsafe.Offsetof(m.Encoding) + unsafe.Sizeof(m.Encoding); end > 48 {
		t.Errorf("the fixed header takes %d bytes, want at most 48", end)
	}
}
