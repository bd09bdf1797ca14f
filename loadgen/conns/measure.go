package conns

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/portask/portask/broker/sysmetrics"
)

// Plan is a measurement.
type Plan struct {
	Options
	Steps []int // growing; see Steps
	// TargetPID is the target's process; 0: it is not on this machine, and its
	// memory stays unknown.
	TargetPID int
	// HoldFor is how long the connections of the last step are held beyond the
	// wait for rest.
	HoldFor time.Duration
	// Progress is called after each step.
	Progress func(Point)
}

// Measure opens connections step by step and reads memory at each, once it has
// come to rest. It answers heartbeats all the while. The Result beside an error
// holds the steps that were reached.
func Measure(ctx context.Context, p Plan) (*Result, error) {
	if err := CheckSteps(p.Steps); err != nil {
		return nil, err
	}
	h, err := Open(p.Options, p.TargetPID)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	var target *sysmetrics.Process
	if p.TargetPID != 0 {
		if target, err = sysmetrics.OpenProcess(p.TargetPID); err != nil {
			return nil, err
		}
	}
	own, err := sysmetrics.OpenProcess(os.Getpid())
	if err != nil {
		return nil, err
	}
	// The last step's limits are told before the first is opened.
	if err := h.system.check(p.Steps[len(p.Steps)-1], 0); err != nil {
		return nil, err
	}
	r := &Result{Schema: Schema, Addr: p.Addr.String(), Topic: p.Topic, Heartbeat: h.o.Heartbeat.Seconds(), TargetPID: p.TargetPID}
	for _, n := range p.Steps {
		began := time.Now()
		if err := h.Hold(ctx, n); err != nil {
			return r.end(h), err
		}
		x := Point{Connections: n, OpenSeconds: time.Since(began).Seconds()}
		if x.RSSBytes, err = h.settled(ctx, target); err != nil {
			return r.end(h), err
		}
		debug.FreeOSMemory() // what answers left behind is no connection's
		if x.OwnRSSBytes, err = own.ResidentBytes(); err != nil {
			return r.end(h), err
		}
		r.Points = append(r.Points, x)
		if p.Progress != nil {
			p.Progress(x)
		}
	}
	if p.HoldFor > 0 {
		began := time.Now()
		err = h.Serve(ctx, p.HoldFor)
		r.HeldFor = time.Since(began).Seconds()
	}
	return r.end(h), err
}

func (r *Result) end(h *Holder) *Result {
	r.Stats, r.OwnRecordBytes = h.Stats(), h.RecordBytes()
	r.fit()
	return r
}

// settled waits until the resident set has not moved by more than 16 KiB for
// half a second, at most five seconds, and returns it; 0 of no target.
func (h *Holder) settled(ctx context.Context, target *sysmetrics.Process) (int64, error) {
	const step, still, most, moved = 100 * time.Millisecond, 5, 50, 16 << 10
	var last int64
	for same, i := 0, 0; same < still && i < most; i++ {
		if err := h.Serve(ctx, step); err != nil {
			return 0, err
		}
		if target == nil {
			return 0, nil
		}
		now, err := target.ResidentBytes()
		if err != nil {
			return 0, fmt.Errorf("the target's memory: %w", err)
		}
		if d := now - last; d > moved || d < -moved {
			last, same = now, 0
			continue
		}
		same++
	}
	return target.ResidentBytes()
}
