package selftest

import (
	"os"
	"time"

	"github.com/portask/portask/broker/sysmetrics"
)

// host watches what the machine does beside this process. For one goroutine.
type host struct {
	process *sysmetrics.Process
	from    sysmetrics.HostSample
	cpu     time.Duration // of this process at from
}

func watchHost() (*host, error) {
	p, err := sysmetrics.OpenProcess(os.Getpid())
	if err != nil {
		return nil, err
	}
	h := &host{process: p}
	return h, h.restart()
}

// restart begins to watch anew.
func (h *host) restart() (err error) {
	if h.from, err = sysmetrics.Host(); err != nil {
		return err
	}
	h.cpu, err = h.process.CPUTime()
	return err
}

// others is the part of the processors' time since the beginning that went to
// others, 0 to 1: programs beside this one, and what the hypervisor took.
func (h *host) others() (float64, error) {
	to, err := sysmetrics.Host()
	if err != nil {
		return 0, err
	}
	cpu, err := h.process.CPUTime()
	if err != nil {
		return 0, err
	}
	taken := to.Busy - h.from.Busy + to.Steal - h.from.Steal
	total := taken + to.Idle - h.from.Idle + to.IOWait - h.from.IOWait
	if total <= 0 {
		return 0, nil
	}
	return max(0, float64(taken-(cpu-h.cpu))/float64(total)), nil
}

// settle fills c.Others and says whether the machine was idle but for this
// process.
func (h *host) settle(c *Check) (idle bool, err error) {
	c.Others, err = h.others()
	return c.Others <= busyShare, err
}
