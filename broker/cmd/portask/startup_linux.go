package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// forgetProgram takes the pages of the program file out of the resident memory
// that nobody has written to: those in use come back at their next use, from
// the page cache, at a fraction of a microsecond each; those of startup do not.
// Starting touches nearly the whole file, since every package begins, and the
// kernel maps what lies around each touched page; an idle broker uses a tenth of
// it.
func forgetProgram() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer f.Close()
	areas, err := cleanAreas(f, exe)
	if err != nil {
		return err
	}
	for _, a := range areas {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, a.start, a.end-a.start, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("madvise %x-%x: %w", a.start, a.end, errno)
		}
	}
	return nil
}

// area is a range of addresses.
type area struct{ start, end uintptr }

// cleanAreas finds, in the text of /proc/PID/smaps, the mappings of the file exe
// that cannot be written and hold no page of their own. Relocated data and
// breakpoints of a debugger are such pages: they would be lost.
func cleanAreas(smaps io.Reader, exe string) ([]area, error) {
	var areas []area
	var a area
	candidate := false
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) >= 5 && strings.Contains(f[0], "-") { // start-end perms offset dev inode path
			from, to, _ := strings.Cut(f[0], "-")
			start, err1 := strconv.ParseUint(from, 16, 64)
			end, err2 := strconv.ParseUint(to, 16, 64)
			perms := f[1]
			candidate = err1 == nil && err2 == nil && start < end && len(perms) == 4 && perms[1] == '-' && perms[3] == 'p' &&
				len(f) >= 6 && strings.Join(f[5:], " ") == exe
			a = area{uintptr(start), uintptr(end)}
		} else if candidate && len(f) == 3 && f[0] == "Anonymous:" {
			if f[1] == "0" {
				areas = append(areas, a)
			}
			candidate = false
		}
	}
	return areas, lines.Err()
}
