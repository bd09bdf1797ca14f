package conns

import (
	"errors"
	"fmt"

	"github.com/portask/portask/broker/fault"
)

// LimitError is a limit of the system that is below what a number of
// connections needs, and how it is raised. It is a fault.ResourceExhausted.
type LimitError struct {
	What       string // "open files of this process"
	Has, Needs uint64
	How        string
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s: %d are needed, the limit is %d; %s", e.What, e.Needs, e.Has, e.How)
}

// Unwrap makes it a fault.ResourceExhausted.
func (e *LimitError) Unwrap() error { return fault.ResourceExhausted }

// ownFiles are descriptors of this process that are no connections, generously.
const ownFiles = 64

// perSource connections come from one loopback address at most.
const perSource = 4096

// system is what limits connections. 0: not known, and not checked.
type system struct {
	soft, hard uint64 // RLIMIT_NOFILE of this process
	openFiles  uint64 // of this process, at present

	nrOpen            uint64 // fs.nr_open, the most that a hard limit may be
	fileMax, fileUsed uint64 // fs.file-max and fs.file-nr, of the machine
	portLow, portHigh uint64 // net.ipv4.ip_local_port_range

	conntrackMax, conntrackCount uint64

	targetSoft, targetOpen uint64 // descriptors of the target's process, if it is on this machine
	local                  bool   // the target is at a loopback address
}

// ports that can be used from one source address.
func (s *system) ports() uint64 {
	if s.portHigh < s.portLow || s.portHigh == 0 {
		return perSource
	}
	return s.portHigh - s.portLow + 1
}

// perSource is how many connections come from one address: never more than half
// of the ports, of which others use some.
func (s *system) perSource() int { return int(max(1, min(perSource, s.ports()/2))) }

// check tells every limit that n connections, held of which are open, would
// meet.
func (s *system) check(n, held int) error {
	var errs []error
	below := func(what string, has, needs uint64, how string, args ...any) {
		if has > 0 && has < needs {
			errs = append(errs, &LimitError{what, has, needs, fmt.Sprintf(how, args...)})
		}
	}
	more := uint64(max(0, n-held))
	need := s.openFiles + more + ownFiles
	how := fmt.Sprintf("ulimit -n %d in the shell that starts loadgen, or LimitNOFILE=%d of its service", need, need)
	if s.hard < need {
		how += "; the hard limit needs root: ulimit -Hn, or nofile in /etc/security/limits.conf"
	}
	if s.nrOpen > 0 && s.nrOpen < need {
		how += fmt.Sprintf("; before that sysctl -w fs.nr_open=%d", need)
	}
	below("open files of this process", s.soft, need, "%s", how)
	need = s.targetOpen + more + ownFiles
	below("open files of the target's process", s.targetSoft, need, "start the target with ulimit -n %d, or LimitNOFILE=%d", need, need)
	ends := uint64(1)
	if s.local {
		ends = 2
	}
	need = s.fileUsed + ends*more + 1024
	below("open files of the machine", s.fileMax, need, "sysctl -w fs.file-max=%d", need)
	if s.conntrackMax > 0 {
		need = s.conntrackCount + more
		below("connections that the firewall tracks", s.conntrackMax, need, "sysctl -w net.netfilter.nf_conntrack_max=%d", need)
	}
	if !s.local {
		below("ports of this machine", s.ports(), uint64(n), `sysctl -w net.ipv4.ip_local_port_range="1024 65535", which gives 64512; beyond that, several machines`)
	}
	if len(errs) > 0 {
		return fmt.Errorf("%d connections: %w", n, errors.Join(errs...))
	}
	return nil
}
