package explain

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/portask/portask/ci/sample"
)

// Every name that a verdict prints is found again.
func TestLocateUndoesString(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{".", "broker", "loadgen/peers"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, dir, "go.mod"), []byte("module x\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range []sample.Bench{
		{Module: "broker", Package: "./wire", Name: "Encode/frame=produce/size=1.5KiB"},
		{Module: "broker", Package: "./storage/disklog", Name: "Append"},
		{Module: "broker", Package: ".", Name: "Append/a.b/c"},
		{Module: "loadgen/peers", Package: "./nats", Name: "Send"},
		{Module: ".", Package: "./words", Name: "Count/size=62"},
		{Module: ".", Package: ".", Name: "Count/size=62"},
	} {
		if got, err := Locate(root, b.String()); err != nil || got != b {
			t.Errorf("%s: %+v, %v; want %+v", b, got, err, b)
		}
	}
	for _, s := range []string{"", "Encode", "broker/wire", "../x.Encode", "broker/wire."} {
		if got, err := Locate(root, s); err == nil {
			t.Errorf("%q: %+v", s, got)
		}
	}
	if err := os.Remove(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	if got, err := Locate(root, "elsewhere/x.Encode"); err == nil {
		t.Errorf("outside of all modules: %+v", got)
	}
}
