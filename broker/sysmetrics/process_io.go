package sysmetrics

import "fmt"

// ProcessIO is what a process has read from and written to storage since it
// began. On Linux WriteBytes counts when pages become dirty, so it includes what
// is never written because the file was removed before.
type ProcessIO struct{ ReadBytes, WriteBytes uint64 }

// IO reads it. Linux tells it to the process's owner only.
func (p *Process) IO() (ProcessIO, error) {
	if p.gone {
		return ProcessIO{}, p.failed("io", ErrGone)
	}
	c, err := p.p.IOCounters()
	if err != nil {
		return ProcessIO{}, fmt.Errorf("process %d: io: %w", p.pid, err)
	}
	return ProcessIO{ReadBytes: c.ReadBytes, WriteBytes: c.WriteBytes}, nil
}
