package command

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/driver/loopback"
)

// A profile is complete when a command ended, whether or not it went well.
func TestCPUProfile(t *testing.T) {
	for _, args := range [][]string{{"scenarios"}, {"validate", filepath.Join(t.TempDir(), "nothing.yaml")}} {
		name := filepath.Join(t.TempDir(), "cpu.pb.gz")
		c := (&Program{Version: "test", Drivers: []driver.Kind{loopback.Kind}}).Command()
		end := profiled(c)
		c.SetArgs(append(args, "--cpuprofile", name))
		c.SetOut(io.Discard)
		c.SetErr(io.Discard)
		_ = c.Execute()
		end()
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		if raw, err := io.ReadAll(z); err != nil || len(raw) == 0 {
			t.Errorf("%v: %d bytes of profile, %v", args, len(raw), err)
		}
	}
}
