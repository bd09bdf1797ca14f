// Package load runs one workload against a deployment, over its socket, and
// says what came of it: rates, latencies from the intended send time, and the
// fate of every message.
//
// In an open-loop run messages are due at times fixed in advance, whatever the
// broker does; a slow broker shows as latency. In a closed-loop run each
// producer sends when an earlier message is acknowledged; its latencies are
// service times, and say nothing about a load that does not wait.
package load

import (
	"errors"
	"fmt"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/payload"
)

// Mode is how messages are timed.
type Mode string

// The modes.
const (
	Open   Mode = "open"
	Closed Mode = "closed"
)

// Arrival is how intended times are spread, in open mode.
type Arrival string

// The arrivals.
const (
	Constant Arrival = "constant"
	Poisson  Arrival = "poisson"
)

// Config describes a run. Zero values take the defaults named here.
type Config struct {
	Addr string
	// Topic is created with Partitions if Create, and deleted at the end if
	// Delete; otherwise it must exist, and what comes from now on is consumed.
	Topic          string
	Create, Delete bool
	Partitions     int // 4; of an existing topic: what it has
	Visibility     message.AckLevel

	Producers, Consumers int // 2 and 2; each with a connection of its own
	Mode                 Mode
	Arrival              Arrival
	Rate                 float64 // messages a second in all, open mode; 10,000
	Duration             time.Duration
	// Warm is the beginning that is verified but not measured; 1 s, at most
	// half of Duration.
	Warm time.Duration
	// Drain bounds the wait for what is outstanding at the end, from the last
	// message that arrived; 15 s.
	Drain time.Duration

	Ack        message.AckLevel
	Policy     compression.Policy
	BatchBytes int           // 64 KiB
	Linger     time.Duration // the client's default if negative
	InFlight   int           // messages of a producer, closed mode; 4096
	Quantum    time.Duration // of the pacer, 50 us
	Seed       uint64

	Source *payload.Source
	// TargetPID is the broker's process, for its CPU and memory; 0 if it is not
	// on this machine.
	TargetPID int
	// Progress is called about once a second while the run goes on.
	Progress func(Snapshot)
}

const (
	partitionsMax = 4096
	clientsMax    = 1024
)

func (c *Config) complete() error {
	def(&c.Partitions, 4)
	def(&c.Producers, 2)
	def(&c.Consumers, 2)
	def(&c.Mode, Open)
	def(&c.Arrival, Constant)
	def(&c.Rate, 10_000)
	def(&c.Duration, 10*time.Second)
	def(&c.Warm, min(time.Second, c.Duration/2))
	def(&c.Drain, 15*time.Second)
	def(&c.BatchBytes, 64<<10)
	def(&c.InFlight, 4096)
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(c.Addr != "", "no address")
	bad(c.Topic != "", "no topic")
	bad(c.Source != nil, "no payloads")
	bad(c.Partitions >= 1 && c.Partitions <= partitionsMax, "%d partitions: want 1 to %d", c.Partitions, partitionsMax)
	bad(c.Producers >= 1 && c.Producers <= clientsMax, "%d producers: want 1 to %d", c.Producers, clientsMax)
	bad(c.Consumers >= 1 && c.Consumers <= c.Partitions, "%d consumers: want 1 to the number of partitions, %d", c.Consumers, c.Partitions)
	bad(c.Mode == Open || c.Mode == Closed, "mode %q: want open or closed", c.Mode)
	bad(c.Arrival == Constant || c.Arrival == Poisson, "arrival %q: want constant or poisson", c.Arrival)
	bad(c.Rate >= 1 && c.Rate <= 1e8, "rate %v: want 1 to 100,000,000 messages a second", c.Rate)
	bad(c.Duration >= 100*time.Millisecond && c.Duration <= 24*time.Hour, "duration %v: want 100ms to 24h", c.Duration)
	bad(c.Warm >= 0 && c.Warm <= c.Duration/2, "warm-up %v: want at most half of the duration %v", c.Warm, c.Duration)
	bad(c.Drain > 0, "drain %v: want a positive duration", c.Drain)
	bad(c.Ack.Valid(), "ack level %v", c.Ack)
	bad(c.InFlight >= 1 && c.InFlight <= 1<<20, "%d messages in flight: want 1 to %d", c.InFlight, 1<<20)
	bad(c.Quantum >= 0 && c.Quantum <= 10*time.Millisecond, "pacing quantum %v: want at most 10ms", c.Quantum)
	return errors.Join(errs...)
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}
