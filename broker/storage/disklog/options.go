package disklog

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// Options of an engine. The zero value of a field means its default.
type Options struct {
	// SegmentBytes is the size of a segment for logs that do not ask for
	// another: 4 KiB to 1 GiB, by default 64 MiB. Larger segments roll less
	// often; retention removes whole segments.
	SegmentBytes int64
	// SegmentAge rolls a segment whose first batch is older, at the next append,
	// so that a slow log can be trimmed by age too. Default 24 h.
	SegmentAge time.Duration
	// Spares is how many segments are kept ready for use, written with zeros
	// or recycled: overwriting one costs a third of the sync time of a growing
	// file. None are made before a log needs its second segment. Default 2,
	// negative for none.
	Spares int
	// FirstBytes is the size of a log's first segment, which is not taken from
	// the spares: thousands of logs that hold little must not hold a whole
	// segment each. Default 1 MiB.
	FirstBytes int64
	// DurableEvery is how often the durable point is synced on its own while
	// batches are being synced: what was synced within it before a power cut
	// may be taken for unsynced if the device damages it too. Default 5 s.
	DurableEvery time.Duration
	// OpenSegments bounds the sealed segments whose file and index are held
	// open for readers, over all logs. Default 64.
	OpenSegments int
	// LowPercent is how full the file system may be before Space reports low.
	// Default 90.
	LowPercent int
	// ReserveBytes are held back for metadata on a full disk. Default 8 MiB,
	// negative for none.
	ReserveBytes int64
	// Logger receives what recovery found and what background work failed at;
	// nil discards it.
	Logger *slog.Logger

	// For tests. inline does the background work within the call that asks
	// for it, so that a script makes the same calls each time.
	inline bool
	random func() uint64
	now    func() time.Time
}

// Limits of Options.
const (
	maxSpares       = 1024
	maxOpenSegments = 1 << 16
	maxReserveBytes = 1 << 30
)

// WithDefaults returns o with the numbers and times that are zero replaced by
// their defaults; what is negative for none stays so.
func (o Options) WithDefaults() Options {
	def := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	def(&o.SegmentBytes, 64<<20)
	def((*int64)(&o.SegmentAge), int64(24*time.Hour))
	def(&o.FirstBytes, 1<<20)
	def((*int64)(&o.DurableEvery), int64(5*time.Second))
	def(&o.ReserveBytes, 8<<20)
	if o.Spares == 0 {
		o.Spares = 2
	}
	if o.OpenSegments == 0 {
		o.OpenSegments = 64
	}
	if o.LowPercent == 0 {
		o.LowPercent = 90
	}
	return o
}

// Check reports every violation, joined: *fault.Errors with the names of the
// fields.
func (o Options) Check() error {
	_, err := o.check()
	return err
}

// check fills in everything and reports all violations.
func (o Options) check() (Options, error) {
	o = o.WithDefaults()
	o.ReserveBytes, o.Spares = max(0, o.ReserveBytes), max(0, o.Spares)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.random == nil {
		o.random = rand.Uint64
	}
	if o.now == nil {
		o.now = time.Now
	}
	var errs []error
	between := func(field string, v, low, high int64) {
		if v < low || v > high {
			limit := low
			if v > high {
				limit = high
			}
			errs = append(errs, fault.New(fault.Invalid, "open disklog").WithField(field).WithLimit(v, limit))
		}
	}
	between("SegmentBytes", o.SegmentBytes, minSegmentBytes, maxSegmentBytes)
	between("SegmentAge", int64(o.SegmentAge), 1, 1<<62)
	between("FirstBytes", o.FirstBytes, minSegmentBytes, maxSegmentBytes)
	between("DurableEvery", int64(o.DurableEvery), 1, 1<<62)
	between("Spares", int64(o.Spares), 0, maxSpares)
	between("OpenSegments", int64(o.OpenSegments), 1, maxOpenSegments)
	between("LowPercent", int64(o.LowPercent), 1, 100)
	between("ReserveBytes", o.ReserveBytes, 0, maxReserveBytes)
	return o, errors.Join(errs...)
}

// newSeed returns a segment id that was never used, by chance of 2^64.
func (o *Options) newSeed() message.Seed {
	for {
		if s := message.Seed(o.random()); s != 0 {
			return s
		}
	}
}
