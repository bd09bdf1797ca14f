//go:build unix

package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/portask/portask/broker/fault"
)

// What a setting names is a regular file: nothing else is read, nor waited for.
func TestReadRegular(t *testing.T) {
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	if err := os.WriteFile(file, []byte("1234"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := readRegular("f", file, 4); err != nil || string(b) != "1234" {
		t.Errorf("%q, %v", b, err)
	}
	for _, c := range []struct {
		name  string
		limit int64
		code  fault.Code
	}{
		{"-", 4, fault.Invalid},
		{fifo, 4, fault.Invalid},
		{dir, 1 << 20, fault.Invalid},
		{os.DevNull, 4, fault.Invalid},
		{filepath.Join(dir, "none"), 4, fault.NotFound},
		{file, 3, fault.TooLarge},
	} {
		_, err := readRegular("f", c.name, c.limit)
		var e *fault.Error
		if !errors.As(err, &e) || e.Code != c.code || e.Field != "f" {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := readDictionary("-"); err == nil {
		t.Error("a dictionary of stdin")
	}
	for _, name := range []string{"-", fifo} {
		var log, stderr bytes.Buffer
		o := brokerOptions{artefact: name}
		if b := o.readArtefact(slog.New(slog.NewTextHandler(&log, nil))); b != nil || !strings.Contains(log.String(), "compression.artefact") {
			t.Errorf("%s: %q, %s", name, b, &log)
		}
		p := produceFlags{artefact: name}
		if _, _, err := p.policy(&stderr); err == nil || !strings.Contains(err.Error(), "artefact") {
			t.Errorf("--artefact %s: %v", name, err)
		}
	}
}
