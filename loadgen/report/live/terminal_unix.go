//go:build unix

package live

import (
	"os"

	"golang.org/x/sys/unix"
)

// Terminal returns how to ask for the size of the terminal that f is; nil if it
// is none.
func Terminal(f *os.File) func() (columns, rows int) {
	size := func() (columns, rows int) {
		w, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
		if err != nil {
			return 0, 0
		}
		return int(w.Col), int(w.Row)
	}
	if c, _ := size(); c == 0 {
		return nil
	}
	return size
}
