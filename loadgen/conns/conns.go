// Package conns opens plain connections by the ten thousand, subscribes each,
// holds them, and tells what one of them costs the broker.
//
// A Holder is one epoll loop on the caller's goroutine: a connection is a
// descriptor and 20 bytes, so that the machine's memory is the broker's. It
// takes from the protocol what a client must do: HELLO, SUBSCRIBE, heartbeats
// both ways, and credit for what is delivered, which is thrown away unread.
//
// The cost is a slope: the resident memory of the broker's process at several
// numbers of connections, once it has come to rest, and the least-squares line
// through them. What the process needs without connections, which is not their
// affair, is the line's other parameter.
//
// Linux only; elsewhere Open answers fault.NotSupported.
package conns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/wire"
)

// Max is the most connections of a Holder.
const Max = 10_000_000

// Driver is the name of the driver whose targets can be held: the protocol is
// the broker's own.
const Driver = "portask"

// Options say what to connect to.
type Options struct {
	// Addr is IPv4. Connections to a loopback address come from 127.0.0.2 and
	// up, a few thousand from each, so that ports do not run out; others come
	// from the address the system chooses, and ports bound their number.
	Addr netip.AddrPort
	// Topic exists; connection i subscribes partition i modulo Partitions at its
	// end.
	Topic      string
	Partitions int // default 1
	// Heartbeat is the interval between signs of life of each connection.
	// Default wire.MaxHeartbeat: idle connections, as idle as the broker allows.
	Heartbeat time.Duration
	// Opening is how many connections may be under way at once, default 128:
	// below the usual bounds of a listener's queue.
	Opening int
}

func (o *Options) setDefaults() error {
	if !o.Addr.Addr().Is4() || o.Addr.Port() == 0 {
		return fault.New(fault.Invalid, "hold connections").WithField("address").WithDetail("%v: want an IPv4 address and a port", o.Addr)
	}
	if o.Partitions == 0 {
		o.Partitions = 1
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = wire.MaxHeartbeat
	}
	if o.Opening == 0 {
		o.Opening = 128
	}
	if o.Partitions < 0 || o.Opening < 0 {
		return fault.New(fault.Invalid, "hold connections").WithDetail("%d partitions, %d under way: want at least 1", o.Partitions, o.Opening)
	}
	if o.Heartbeat < wire.MinHeartbeat || o.Heartbeat > wire.MaxHeartbeat {
		return fault.New(fault.Invalid, "hold connections").WithField("heartbeat").WithDetail("%v: want %v to %v", o.Heartbeat, wire.MinHeartbeat, wire.MaxHeartbeat)
	}
	return wire.CheckTopicName(o.Topic)
}

// Stats count since Open.
type Stats struct {
	Connections int    `json:"connections"` // subscribed
	Heartbeats  uint64 `json:"heartbeats"`
	Answered    uint64 `json:"answered"`   // heartbeats, by the broker
	Deliveries  uint64 `json:"deliveries"` // frames, thrown away
	// DeliveredBytes are of those frames.
	DeliveredBytes uint64 `json:"delivered_bytes"`
}

// Point is the memory at some number of connections. Bytes are of resident
// memory; 0: not known.
type Point struct {
	Connections int     `json:"connections"`
	RSSBytes    int64   `json:"rss_bytes"`     // of the target
	OwnRSSBytes int64   `json:"own_rss_bytes"` // of this process
	OpenSeconds float64 `json:"open_s"`        // since the last step; not a measure of the target
}

// Schema is the version of Result as JSON. Fields are added without changing
// it.
const Schema = 1

// Result is what Measure found.
type Result struct {
	Schema    int     `json:"schema"`
	Addr      string  `json:"addr"`
	Topic     string  `json:"topic"`
	Heartbeat float64 `json:"heartbeat_s"`
	TargetPID int     `json:"target_pid,omitempty"`
	Points    []Point `json:"points"`
	// Slope is bytes of the target's memory for each connection, OwnSlope the
	// same of this process; 0 with fewer than two Points or an unknown target.
	Slope    float64 `json:"slope_bytes"`
	Base     float64 `json:"base_bytes"` // of the target's line, at 0 connections
	OwnSlope float64 `json:"own_slope_bytes"`
	// OwnRecordBytes are allocated here for all connections, counted.
	OwnRecordBytes int64   `json:"own_record_bytes"`
	HeldFor        float64 `json:"held_s"` // at the last step, beyond the wait for rest
	Stats
}

// Steps are numbers of connections from which a slope up to n can be told.
func Steps(n int) []int {
	steps := []int{max(1, n/20), max(1, n/4), max(1, n/2), n}
	return slices.Compact(steps)
}

// CheckSteps refuses steps that do not grow.
func CheckSteps(steps []int) error {
	for i, n := range steps {
		if n < 1 || n > Max || i > 0 && n <= steps[i-1] {
			return fault.New(fault.Invalid, "hold connections").WithField("steps").WithDetail("%v: want growing numbers from 1 to %d", steps, Max)
		}
	}
	if len(steps) == 0 || len(steps) > 64 {
		return fault.New(fault.Invalid, "hold connections").WithField("steps").WithDetail("%d of them: want 1 to 64", len(steps))
	}
	return nil
}

// line is the least-squares line through the points.
func line(p []Point, y func(Point) int64) (slope, base float64) {
	var n, sx, sy, sxx, sxy float64
	for _, v := range p {
		x, y := float64(v.Connections), float64(y(v))
		n, sx, sy, sxx, sxy = n+1, sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	d := n*sxx - sx*sx
	if n < 2 || d == 0 {
		return 0, 0
	}
	slope = (n*sxy - sx*sy) / d
	return slope, (sy - slope*sx) / n
}

func (r *Result) fit() {
	r.Slope, r.Base = 0, 0
	if !slices.ContainsFunc(r.Points, func(p Point) bool { return p.RSSBytes == 0 }) {
		r.Slope, r.Base = line(r.Points, func(p Point) int64 { return p.RSSBytes })
	}
	r.OwnSlope, _ = line(r.Points, func(p Point) int64 { return p.OwnRSSBytes })
}

// Table writes the result for people.
func (r *Result) Table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-26s %s, topic %s, heartbeat %v\n", "target", r.Addr, r.Topic, time.Duration(r.Heartbeat*1e9))
	fmt.Fprintf(&b, "%12s  %14s  %14s  %9s\n", "connections", "target RSS", "loadgen RSS", "opened in")
	for _, p := range r.Points {
		fmt.Fprintf(&b, "%12d  %14s  %14s  %8.2fs\n", p.Connections, mib(p.RSSBytes), mib(p.OwnRSSBytes), p.OpenSeconds)
	}
	if r.Slope != 0 {
		fmt.Fprintf(&b, "%-26s %.0f B of the target's memory, beside %s for everything else\n", "each connection costs", r.Slope, mib(int64(r.Base)))
	} else {
		fmt.Fprintf(&b, "%-26s not known: that takes two steps and a target on this machine (--pid)\n", "each connection costs")
	}
	if r.Connections > 0 {
		slope := ""
		if r.OwnSlope != 0 {
			slope = fmt.Sprintf("; its resident memory grows by %.0f B for each", r.OwnSlope)
		}
		fmt.Fprintf(&b, "%-26s %.0f B of a record for each%s\n", "loadgen itself", float64(r.OwnRecordBytes)/float64(r.Connections), slope)
	}
	fmt.Fprintf(&b, "%-26s %d connections, all subscribed; %d of %d heartbeats answered, %d deliveries thrown away\n", "held", r.Connections, r.Answered, r.Heartbeats, r.Deliveries)
	return b.String()
}

func mib(n int64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20))
}
