package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/load"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string][2]int{"1024": {1024, 1024}, "200..4000": {200, 4000}} {
		if lo, hi, err := parseSize(in); err != nil || lo != want[0] || hi != want[1] {
			t.Errorf("%q: %d, %d, %v", in, lo, hi, err)
		}
	}
	for _, in := range []string{"", "x", "1..", "..2", "1..2..3", "1k"} {
		if lo, hi, err := parseSize(in); err == nil {
			t.Errorf("%q: %d, %d", in, lo, hi)
		}
	}
}

func TestParsePolicy(t *testing.T) {
	p, err := parsePolicy("always:lz4")
	if err != nil || p.Strategy != compression.Always || p.Algorithm != message.LZ4 {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := parsePolicy("never"); err != nil || p.Strategy != compression.Never {
		t.Errorf("%+v, %v", p, err)
	}
	for _, in := range []string{"", "sometimes", "always:lzma", "always:"} {
		if p, err := parsePolicy(in); err == nil {
			t.Errorf("%q: %+v", in, p)
		}
	}
}

func TestPayloads(t *testing.T) {
	f, err := payloads(t.Context(), "json", 1)
	if err != nil || len(f) != 1 || len(f[0].Bytes) != generatedBytes {
		t.Errorf("json: %d files, %v", len(f), err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/a.txt", []byte("x"), 0o666); err != nil {
		t.Fatal(err)
	}
	if f, err := payloads(t.Context(), dir, 1); err != nil || len(f) != 1 || string(f[0].Bytes) != "x" {
		t.Errorf("directory: %+v, %v", f, err)
	}
	if _, err := payloads(t.Context(), "nowhere", 1); err == nil {
		t.Error("nowhere: accepted")
	}
}

func TestVerdict(t *testing.T) {
	good := func() *load.Result { return &load.Result{Delivered: 1000, E2E: load.Quantiles{P99: 5_000_000}} }
	f := runFlags{sloP99: 10_000_000, sloRate: 900}
	for _, tt := range []struct {
		name   string
		change func(*load.Result)
		want   int
	}{
		{"all well", func(*load.Result) {}, 0},
		{"slow", func(r *load.Result) { r.E2E.P99 = 11_000_000 }, 2},
		{"too little", func(r *load.Result) { r.Delivered = 899 }, 2},
		{"invalid and slow", func(r *load.Result) { r.E2E.P99 = 11_000_000; r.Invalid = []string{"lag"} }, 3},
		{"lost and invalid", func(r *load.Result) { r.Invalid = []string{"lag"}; r.Violations = []string{"lost"} }, 4},
	} {
		r := good()
		tt.change(r)
		if got := exitStatus(f.verdict(r)); got != tt.want {
			t.Errorf("%s: exit status %d, want %d", tt.name, got, tt.want)
		}
	}
	if got := exitStatus(fmt.Errorf("wrapped: %w", &statusError{4, errors.New("x")})); got != 4 {
		t.Errorf("a wrapped status became %d", got)
	}
	if got := exitStatus(errors.New("usage")); got != 1 {
		t.Errorf("an ordinary error became %d", got)
	}
}

func TestUsageErrorsAreStatusOne(t *testing.T) {
	for _, args := range [][]string{
		{"run", "--output", "xml"}, {"run", "--ack", "perhaps"}, {"run", "--compression", "x"}, {"run", "--size", "1..x"},
		{"run", "--payload", "nothing"}, {"run", "--visibility", "maybe"}, {"run", "--nonsense"}, {"nonsense"}, {"run", "surplus"},
		{"run", "--size", "10"}, {"run", "--quiet", "--addr", "127.0.0.1:1", "--rate", "-1"},
	} {
		c := root()
		var out bytes.Buffer
		c.SetOut(&out)
		c.SetErr(&out)
		c.SetArgs(args)
		if got := exitStatus(c.ExecuteContext(t.Context())); got != 1 {
			t.Errorf("%s: exit status %d, want 1", strings.Join(args, " "), got)
		}
	}
}

func TestProgressOverwritesOnTerminalOnly(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(&b)
	p.line("one, and long")
	p.event("two")
	p.end()
	if got := b.String(); got != "one, and long\ntwo\n" {
		t.Errorf("a file got %q", got)
	}
	b.Reset()
	p.terminal = true
	p.line("one, and long")
	p.event("two")
	p.end()
	if got := b.String(); got != "\rone, and long\rtwo          \n" {
		t.Errorf("a terminal got %q", got)
	}
}
