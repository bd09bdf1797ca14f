//go:build unix

package main

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A pipe that nobody writes is refused as an artefact, and not waited for.
func TestArtefactIsRegular(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openArtefact(fifo); err == nil || !strings.Contains(err.Error(), "regular file") {
		t.Errorf("%v", err)
	}
}
