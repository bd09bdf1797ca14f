package wire

import (
	"bytes"
	"errors"
	"runtime"
	"testing"

	"github.com/portask/portask/broker/fault"
)

// typed fails unless err is nil or an error that names what is wrong and where.
func typed(t *testing.T, err error) {
	var e *fault.Error
	if err != nil && (!errors.As(err, &e) || e.Op == "" || e.Field == "" || !e.Code.Known()) {
		t.Fatalf("not a typed error: %#v", err)
	}
}

func FuzzHeader(f *testing.F) {
	for _, s := range samples(f) {
		f.Add(AppendFrame(nil, s.h, s.p), DefaultMaxFrame)
	}
	f.Add(AppendPreface(nil, 1, 1), MinMaxFrame)
	f.Add([]byte("GET / HTTP/1.1\r\n"), PreAuthFrameBytes)
	f.Fuzz(func(t *testing.T, b []byte, maxFrame int) {
		if kind := Detect(b); kind == KindShort && len(b) >= PrefaceBytes {
			t.Fatalf("8 bytes did not decide: % x", b)
		}
		lo, hi, err := ParsePreface(b)
		typed(t, err)
		if err == nil && !bytes.Equal(AppendPreface(nil, lo, hi), b[:PrefaceBytes]) {
			t.Fatalf("preface % x is not stable", b[:PrefaceBytes])
		}
		h, err := ParseHeader(b, maxFrame)
		typed(t, err)
		if err != nil {
			return
		}
		if n := h.FrameBytes(); n < HeaderBytes || n > maxFrame {
			t.Fatalf("a frame of %d bytes", n)
		}
		if !bytes.Equal(AppendHeader(nil, h), b[:HeaderBytes]) {
			t.Fatalf("header % x is not stable: %+v", b[:HeaderBytes], h)
		}
	})
}

func FuzzPayload(f *testing.F) {
	for _, s := range samples(f) {
		payload := s.p.Append(nil)
		f.Add(uint16(s.h.Opcode), payload)
		if s.options != -1 {
			f.Add(uint16(s.h.Opcode), s.withOption(payload, 2, "x"))
		}
		for _, d := range s.refuse {
			f.Add(uint16(s.h.Opcode), d.do(append([]byte{}, payload...)))
		}
	}
	f.Fuzz(func(t *testing.T, opcode uint16, b []byte) {
		p := NewPayload(Opcode(opcode))
		if p == nil {
			return
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := p.Parse(b)
		runtime.ReadMemStats(&after)
		// The worst is METADATA: 2 bytes become a string header of 16, in a slice
		// that doubles. The rest is for what else runs in the process.
		if n := after.TotalAlloc - before.TotalAlloc; n > uint64(64*len(b)+256<<10) {
			t.Fatalf("%d bytes of %v took %d bytes of memory", len(b), Opcode(opcode), n)
		}
		typed(t, err)
		if err != nil {
			return
		}
		once := p.Append(nil)
		if len(once) > len(b) {
			t.Fatalf("%d bytes became %d", len(b), len(once))
		}
		again := NewPayload(Opcode(opcode))
		if err := again.Parse(once); err != nil {
			t.Fatalf("% x\nencoded as\n% x\ncannot be parsed: %v", b, once, err)
		}
		if twice := again.Append(nil); !bytes.Equal(once, twice) {
			t.Fatalf("encoded as\n% x\nand then as\n% x", once, twice)
		}
	})
}

func FuzzDeliver(f *testing.F) {
	for _, s := range samples(f) {
		if _, ok := s.p.(*Deliver); !ok {
			continue
		}
		payload := s.p.Append(nil)
		f.Add(payload)
		for _, d := range s.refuse {
			f.Add(d.do(append([]byte{}, payload...)))
		}
	}
	// Reused as a session does: what the last delivery left must not show.
	f.Fuzz(func(t *testing.T, b []byte) {
		x := DeliverHead{Ranges: make([]Range, 3, 4), Runs: make([]Run, 3, 4)}
		batches, err := ParseDeliver(b, &x)
		typed(t, err)
		if err != nil {
			return
		}
		if len(x.Runs) > MaxRuns || len(x.Ranges) > MaxRanges || x.BatchBytes() != len(batches) {
			t.Fatalf("%d runs, %d ranges, %d bytes of %d", len(x.Runs), len(x.Ranges), x.BatchBytes(), len(batches))
		}
		for i, r := range x.Runs {
			if r.First < 0 || r.End <= r.First || i > 0 && r.First < x.Runs[i-1].End {
				t.Fatalf("run %d: %+v", i, r)
			}
		}
		for i, r := range x.Ranges {
			if r.First < 0 || r.End <= r.First || i > 0 && r.First < x.Ranges[i-1].End {
				t.Fatalf("range %d: %+v", i, r)
			}
		}
		if len(batches) > 0 && &batches[len(batches)-1] != &b[len(b)-1] {
			t.Fatal("the batches are not the end of the payload")
		}
		once := append(AppendDeliverHead(nil, &x), batches...)
		var y DeliverHead
		if _, err := ParseDeliver(once, &y); err != nil {
			t.Fatalf("encoded again: %v", err)
		}
		if twice := AppendDeliverHead(nil, &y); !bytes.Equal(once[:len(once)-len(batches)], twice) || len(twice) != y.HeadBytes() {
			t.Fatalf("encoded as\n% x\nand then as\n% x", once, twice)
		}
	})
}
