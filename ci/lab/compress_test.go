package lab

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/perf/benchfmt"
)

// TestCompressBench: what `portask compress bench -o benchfmt` prints is read by
// the parser that benchstat and this laboratory use.
func TestCompressBench(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the broker")
	}
	name := filepath.Join(t.TempDir(), "portask")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-pgo=off", "-o", name, "github.com/portask/portask/broker/cmd/portask").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(name, "compress", "bench", "lab_test.go", "report.go", "--size", "256B,1KiB", "--algorithm", "zstd,lz4", "--level", "fastest", "--time", "1ms", "-o", "benchfmt")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	r := benchfmt.NewReader(bytes.NewReader(out), "compress bench")
	results := 0
	for r.Scan() {
		switch rec := r.Result().(type) {
		case *benchfmt.Result:
			results++
			if rec.Iters < 1 || rec.GetConfig("goos") == "" || rec.GetConfig("split") != "size" {
				t.Errorf("%s: %d iterations, %v", rec.Name, rec.Iters, rec.Config)
			}
			for _, unit := range []string{"sec/op", "B/s", "sec/B", "ratio"} {
				if v, ok := rec.Value(unit); !ok || v <= 0 {
					t.Errorf("%s: %v %s", rec.Name, v, unit)
				}
			}
		case *benchfmt.SyntaxError:
			t.Error(rec)
		}
	}
	if err := r.Err(); err != nil || results != 2*2*2 {
		t.Errorf("%d results, want 8; %v\n%s", results, err, out)
	}
}
