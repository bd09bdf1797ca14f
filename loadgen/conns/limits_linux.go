package conns

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// readSystem reads what can be read; the rest stays unknown.
func readSystem(local bool, targetPID int) system {
	s := system{local: local}
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) == nil {
		s.soft, s.hard = r.Cur, r.Max
	}
	s.openFiles = openFiles("self")
	numbers("/proc/sys/fs/nr_open", &s.nrOpen)
	numbers("/proc/sys/fs/file-max", &s.fileMax)
	numbers("/proc/sys/fs/file-nr", &s.fileUsed)
	numbers("/proc/sys/net/ipv4/ip_local_port_range", &s.portLow, &s.portHigh)
	numbers("/proc/sys/net/netfilter/nf_conntrack_max", &s.conntrackMax)
	numbers("/proc/sys/net/netfilter/nf_conntrack_count", &s.conntrackCount)
	if targetPID != 0 {
		s.targetSoft = maxOpenFiles(targetPID)
		s.targetOpen = openFiles(strconv.Itoa(targetPID))
	}
	return s
}

// numbers reads the first numbers of a file.
func numbers(name string, into ...*uint64) {
	b, err := os.ReadFile(name)
	if err != nil {
		return
	}
	for i, f := range strings.Fields(string(b)) {
		if i == len(into) {
			return
		}
		if n, err := strconv.ParseUint(f, 10, 64); err == nil {
			*into[i] = n
		}
	}
}

func openFiles(pid string) uint64 {
	d, err := os.ReadDir("/proc/" + pid + "/fd")
	if err != nil {
		return 0
	}
	return uint64(len(d))
}

// maxOpenFiles is another process's soft limit, 0 if it cannot be read or there
// is none.
func maxOpenFiles(pid int) uint64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return 0
	}
	for l := range bytes.Lines(b) {
		rest, ok := bytes.CutPrefix(l, []byte("Max open files"))
		if !ok {
			continue
		}
		if f := bytes.Fields(rest); len(f) > 0 {
			n, _ := strconv.ParseUint(string(f[0]), 10, 64) // "unlimited": 0
			return n
		}
	}
	return 0
}

// Listener finds the process that listens at a TCP port of this machine, by the
// socket's inode in /proc: 0 if there is none, or it belongs to another user.
func Listener(port uint16) int {
	inodes := map[string]bool{}
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for l := range bytes.Lines(b) {
			f := strings.Fields(string(l))
			// Local address, state 0A (LISTEN) and the inode.
			if len(f) < 10 || f[3] != "0A" || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				continue
			}
			inodes["socket:["+f[9]+"]"] = true
		}
	}
	if len(inodes) == 0 {
		return 0
	}
	all, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, e := range all {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := "/proc/" + e.Name() + "/fd/"
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if at, err := os.Readlink(dir + fd.Name()); err == nil && inodes[at] {
				return pid
			}
		}
	}
	return 0
}
