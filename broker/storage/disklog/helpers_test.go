package disklog

import (
	"os"

	"github.com/portask/portask/broker/internal/vfs"
)

// writeFile replaces a file in place.
func writeFile(fs vfs.FS, name string, b []byte) error {
	f, err := fs.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return f.SyncAll()
}
