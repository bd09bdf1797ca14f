package wire

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/portask/portask/broker/fault"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata and the generated tables of PROTOCOL.md")

// golden collects the frames of one file and compares it with what is stored:
//
//	what the frame is
//	  16 bytes a line in hex
//	refused: what is wrong with it
//	  error: what Parse says
//	  hex
type golden struct{ strings.Builder }

func (g *golden) frame(what string, b []byte, err error) {
	if err != nil {
		fmt.Fprintf(g, "refused: %s\n  error: [%v] %v\n", what, fault.CodeOf(err), err)
	} else {
		fmt.Fprintln(g, what)
	}
	for len(b) > 0 {
		n := min(16, len(b))
		fmt.Fprintf(g, "  % x\n", b[:n])
		b = b[n:]
	}
}

func (g *golden) compare(t *testing.T, name string) {
	t.Helper()
	path := filepath.Join("testdata", "v1", name+".hex")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(g.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := g.String(); got != string(want) {
		t.Errorf("%s differs\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func frameOf(h Header, payload []byte) []byte {
	b, mark := BeginFrame(nil, h)
	return EndFrame(append(b, payload...), mark)
}

func TestGoldenFrames(t *testing.T) {
	for _, s := range samples(t) {
		t.Run(s.name, func(t *testing.T) {
			var g golden
			frame := AppendFrame(nil, s.h, s.p)
			g.frame("frame", frame, nil)

			h, err := ParseHeader(frame, DefaultMaxFrame)
			if err != nil {
				t.Fatal(err)
			}
			want := s.h
			want.Version, want.Length = 1, uint32(len(frame)-4)
			if h != want || h.FrameBytes() != len(frame) {
				t.Errorf("header %+v, want %+v", h, want)
			}
			payload := PayloadOf(frame)
			back := NewPayload(h.Opcode)
			if back == nil {
				t.Fatalf("no payload type for %v", h.Opcode)
			}
			if reflect.TypeOf(back) != reflect.TypeOf(s.p) {
				t.Fatalf("payload type %T, want %T", back, s.p)
			}
			if err := back.Parse(payload); err != nil {
				t.Fatal(err)
			}
			if again := back.Append(nil); !bytes.Equal(again, payload) {
				t.Errorf("encoded again:\n% x\nwant\n% x", again, payload)
			}
			if !sameValue(back, s.p) {
				t.Errorf("parsed  %+v\nwant    %+v", back, s.p)
			}

			if s.options != -1 {
				even := s.withOption(payload, 0xbeee, "future")
				g.frame("with an unknown even option, which is skipped", frameOf(s.h, even), nil)
				back := NewPayload(h.Opcode)
				if err := back.Parse(even); err != nil {
					t.Errorf("unknown even option: %v", err)
				} else if !sameValue(back, s.p) {
					t.Errorf("unknown even option: parsed %+v", back)
				}
				odd := s.withOption(payload, 0xbeef, "future")
				err := NewPayload(h.Opcode).Parse(odd)
				if fault.CodeOf(err) != fault.NotSupported {
					t.Errorf("unknown odd option: %v", err)
				}
				g.frame("an unknown odd option", frameOf(s.h, odd), err)
			}
			if h.Opcode != OpProduce { // its batch takes everything to the end
				long := append(append([]byte{}, payload...), 0)
				err := NewPayload(h.Opcode).Parse(long)
				if fault.CodeOf(err) != fault.ProtocolViolation {
					t.Errorf("byte after the end: %v", err)
				}
				g.frame("a byte after the end", frameOf(s.h, long), err)
			}
			for _, d := range s.refuse {
				bad := d.do(append([]byte{}, payload...))
				err := NewPayload(h.Opcode).Parse(bad)
				if err == nil {
					t.Errorf("%s: accepted", d.what)
					continue
				}
				g.frame(d.what, frameOf(s.h, bad), err)
			}
			g.compare(t, s.name)
		})
	}
}

// sameValue compares payloads without telling an empty slice from none.
func sameValue(a, b Payload) bool {
	return reflect.DeepEqual(a, b) || fmt.Sprintf("%+v", a) == fmt.Sprintf("%+v", b)
}

func TestEveryOpcodeHasGoldenFrames(t *testing.T) {
	have := map[string]bool{}
	for _, s := range samples(t) {
		have[fmt.Sprintf("%T", s.p)] = true
	}
	for _, i := range opcodes {
		for _, op := range []Opcode{i.op, i.op.Response()} {
			if p := NewPayload(op); p != nil && !have[fmt.Sprintf("%T", p)] {
				t.Errorf("%v: no sample of %T", op, p)
			}
		}
	}
}

func TestGoldenPrefaceAndAnswers(t *testing.T) {
	var g golden
	b := AppendPreface(nil, 1, 1)
	g.frame("preface of a client that speaks version 1", b, nil)
	lo, hi, err := ParsePreface(b)
	if err != nil || lo != 1 || hi != 1 || Detect(b) != KindPortask {
		t.Errorf("versions %d to %d, %v", lo, hi, err)
	}
	b = AppendPreface(nil, 2, 0x0304)
	g.frame("preface of a client that speaks versions 2 to 772", b, nil)
	lo, hi, err = ParsePreface(b)
	if err != nil || lo != 2 || hi != 0x0304 {
		t.Errorf("versions %d to %d, %v", lo, hi, err)
	}
	_, err = Negotiate(lo, hi)
	if fault.CodeOf(err) != fault.VersionUnsupported {
		t.Errorf("Negotiate: %v", err)
	}
	for _, bad := range []struct {
		what string
		b    []byte
	}{
		{"another magic", []byte("PTSX\x01\x00\x01\x00")},
		{"version 0", AppendPreface(nil, 0, 1)},
		{"a range upside down", AppendPreface(nil, 2, 1)},
		{"half a preface", []byte("PTSK\x01")},
	} {
		_, _, err := ParsePreface(bad.b)
		if fault.CodeOf(err) != fault.ProtocolViolation {
			t.Errorf("%s: %v", bad.what, err)
		}
		g.frame(bad.what, bad.b, err)
	}
	g.frame("answer to a TLS hello", TLSAlert(), nil)
	g.compare(t, "preface")
}

func TestGoldenHeaders(t *testing.T) {
	var g golden
	h := Header{Length: 20, Opcode: OpFetch, Version: 2, Flags: FlagTrace | FlagNoReply, Correlation: 0x01020304, Handle: 0xa1a2a3a4}
	b := AppendHeader(nil, h)
	g.frame("version 2, trace, no reply", b, nil)
	if back, err := ParseHeader(b, DefaultMaxFrame); err != nil || back != h {
		t.Errorf("%+v, %v", back, err)
	}
	err := h.CheckVersion()
	if fault.CodeOf(err) != fault.VersionUnsupported || fault.InfoOf(err).ClosesConnection {
		t.Errorf("version 2 of FETCH: %v", err)
	}
	h.Version = 1
	if err := h.CheckVersion(); err != nil {
		t.Error(err)
	}
	for _, bad := range []struct {
		what string
		code fault.Code
		do   func(b []byte) []byte
	}{
		{"half a header", fault.ProtocolViolation, func(b []byte) []byte { return b[:15] }},
		{"a length below 12", fault.ProtocolViolation, func(b []byte) []byte { b[0] = 11; return b }},
		{"a length above the maximum", fault.TooLarge, func(b []byte) []byte { copy(b, "\xfd\xff\x7f\x00"); return b }},
		{"a length of 4 GiB", fault.TooLarge, func(b []byte) []byte { copy(b, "\xff\xff\xff\xff"); return b }},
		{"a reserved flag", fault.ProtocolViolation, func(b []byte) []byte { b[7] |= 8; return b }},
		{"version 0", fault.ProtocolViolation, func(b []byte) []byte { b[6] = 0; return b }},
	} {
		x := bad.do(append([]byte{}, b...))
		_, err := ParseHeader(x, DefaultMaxFrame)
		if fault.CodeOf(err) != bad.code || !fault.InfoOf(err).ClosesConnection {
			t.Errorf("%s: %v", bad.what, err)
		}
		g.frame(bad.what, x, err)
	}
	copy(b, "\xfc\xff\x7f\x00")
	if n, err := FrameBytes(b, DefaultMaxFrame); err != nil || n != DefaultMaxFrame {
		t.Errorf("a frame of exactly the maximum: %d, %v", n, err)
	}
	g.compare(t, "header")
}
