package measure

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/ci/policy/rows"
)

func TestBatches(t *testing.T) {
	b := make([]byte, 10_000)
	for i := range b {
		b[i] = byte(i >> 8)
	}
	for _, tt := range []struct{ size, most, want int }{{1024, 16, 16}, {4096, 16, 3}, {4096, 2, 2}, {10_000, 4, 1}, {11_000, 4, 1}, {16_384, 4, 0}} {
		got := batches(b, tt.size, tt.most)
		if len(got) != tt.want {
			t.Errorf("%d of %d bytes: %d batches, want %d", tt.most, tt.size, len(got), tt.want)
		}
		for _, x := range got {
			if len(x) != min(tt.size, len(b)) {
				t.Errorf("a batch of %d has %d bytes", tt.size, len(x))
			}
		}
		if n := len(got); n > 1 && &got[n-1][tt.size-1] != &b[len(b)-1] {
			t.Errorf("%d bytes: the last batch is not at the end", tt.size)
		}
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	line := "level=info msg=\"one line of many\" n=1234\n"
	write("logs/a.log", strings.Repeat(line, 120))
	write("logs/copy.log", strings.Repeat(line, 120)) // the same bytes count once
	write("top.csv", strings.Repeat("1,2,3\n", 400))
	write("logs/tiny", "x")
	write("syslog", strings.Repeat("another "+line, 120)) // no extension: its class is unnamed
	var told bytes.Buffer
	got, err := Sweep(context.Background(), Options{Dirs: []string{dir}, Batches: 2, Repeat: 1, Loads: []int{0}, Log: &told})
	if err != nil {
		t.Fatal(err)
	}
	classes := map[string]int{}
	for _, r := range got {
		classes[r.Class]++
		if len(r.Cells) != len(rows.Encoders) || r.In != r.Size || r.Size > adaptive.Sizes[1] {
			t.Errorf("%+v", r)
		}
		for e, c := range r.Cells {
			if c.Out < 1 || c.Out >= int64(r.In) || c.EncodeNs < 1 || c.DecodeNs < 1 {
				t.Errorf("%s on %s: %+v", rows.Encoders[e], r.Class, c)
			}
		}
	}
	if !strings.Contains(told.String(), "left out 1 files") {
		t.Errorf("of the short file it says %q", told.String())
	}
	if classes["logs"] != 3 || classes["csv"] != 2 || classes[unnamed] != 3 {
		t.Errorf("rows by class: %v", classes)
	}
	if _, err := Sweep(context.Background(), Options{Dirs: []string{t.TempDir()}, Batches: 1, Repeat: 1, Loads: []int{0}}); err == nil {
		t.Error("measured on nothing")
	}
	stopped, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Sweep(stopped, Options{Dirs: []string{dir}, Batches: 1, Repeat: 1, Loads: []int{5}}); err == nil {
		t.Error("went on though it was told to stop")
	}
}
