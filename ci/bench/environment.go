package bench

import (
	"fmt"
	"strings"

	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/ci/sample"
)

// A round is marked as disturbed above these shares: of its time that the
// hypervisor took, in which somebody on this machine waited for a processor,
// and of its pairs that waited too long. Marks are for people and for the
// training of policies; they decide nothing here.
const (
	stealMarked    = 0.05
	pressureMarked = 0.5
	waitedMarked   = 0.3
)

// readMachine reads what it can; a system without a figure has zero.
func (s *Session) readMachine() sysmetrics.Sample {
	m, _ := s.host.Read()
	return m
}

// environment is what happened between two readings.
func environment(from, to sysmetrics.Sample) sample.Environment {
	e := sample.Environment{
		Seconds:     to.At.Sub(from.At).Seconds(),
		StealShare:  sysmetrics.StealShare(from.Host, to.Host),
		Load1:       to.Host.Load1,
		AvailableB:  to.Host.AvailableBytes,
		ThrottledS:  max(0, (to.Usage.Throttled - from.Usage.Throttled).Seconds()),
		CPUPressure: 0,
	}
	if e.Seconds <= 0 {
		e.Seconds = 0
		return e
	}
	busy := to.Host.Busy - from.Host.Busy
	all := busy + to.Host.Idle - from.Host.Idle + to.Host.IOWait - from.Host.IOWait + to.Host.Steal - from.Host.Steal
	if all > 0 {
		e.BusyShare = share(busy.Seconds() / all.Seconds())
	}
	e.DiskBytesS = grown(from.Disk.ReadBytes+from.Disk.WriteBytes, to.Disk.ReadBytes+to.Disk.WriteBytes) / e.Seconds
	e.NetBytesS = grown(from.Network.BytesIn+from.Network.BytesOut, to.Network.BytesIn+to.Network.BytesOut) / e.Seconds
	if from.HasPressure && to.HasPressure {
		e.CPUPressure = share((to.Pressure.CPU.Some - from.Pressure.CPU.Some).Seconds() / e.Seconds)
	}
	return e
}

func grown(from, to uint64) float64 {
	if to < from {
		return 0
	}
	return float64(to - from)
}

func share(x float64) float64 { return max(0, min(1, x)) }

// interference says what disturbed a round, empty if nothing did.
func interference(e sample.Environment, waited, pairs int, dropped bool) string {
	var said []string
	if e.StealShare > stealMarked {
		said = append(said, fmt.Sprintf("steal %.0f %%", 100*e.StealShare))
	}
	if e.CPUPressure > pressureMarked {
		said = append(said, fmt.Sprintf("processors wanted %.0f %% of the time", 100*e.CPUPressure))
	}
	if e.ThrottledS > 0 {
		said = append(said, fmt.Sprintf("throttled %.2f s", e.ThrottledS))
	}
	if float64(waited) > waitedMarked*float64(pairs) || (waited > 0 && !dropped) {
		what := "left out"
		if !dropped {
			what = "all kept"
		}
		said = append(said, fmt.Sprintf("%d of %d pairs waited for a processor, %s", waited, pairs, what))
	}
	return strings.Join(said, "; ")
}
