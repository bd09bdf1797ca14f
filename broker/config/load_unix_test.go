//go:build unix

package config

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/portask/portask/broker/fault"
)

// What is no file is refused without being opened: a pipe that nobody writes
// would be waited for, a device read for ever.
func TestWhatIsNoFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	pipe, zero, folder := filepath.Join(dir, "pipe.yaml"), filepath.Join(dir, "zero.yaml"), filepath.Join(dir, "folder.yaml")
	if err := errors.Join(syscall.Mkfifo(pipe, 0o600), os.Symlink("/dev/zero", zero), os.Mkdir(folder, 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{pipe, zero, folder} {
		if _, err := readFile(name); fault.CodeOf(err) != fault.Invalid || fault.InfoOf(err).Category != fault.CategoryConfiguration {
			t.Errorf("%s: %v", name, err)
		}
	}
}
