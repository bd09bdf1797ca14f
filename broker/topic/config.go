// Package topic is the catalogue of a broker's topics: names, ids, settings and
// the partitions behind them. It is kept as one small blob in the engine's
// metadata, replaced atomically at each change, and it opens, closes and
// removes the partitions' logs. It leaves order and visibility to package
// partition and bytes to the engine.
package topic

import (
	"math"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/wire"
)

// Limits of the catalogue.
const (
	PartitionsMax = 4096   // of one topic
	TopicsMax     = 10_000 // of one broker
	// AllPartitionsMax bounds the open logs of a broker: each holds a
	// descriptor, and a sync serves one partition only.
	AllPartitionsMax = 16_384
	SegmentBytesMin  = 16 << 10
	SegmentBytesMax  = 1 << 30
	// RetentionMsMax is what fits a time.Duration: 292 years.
	RetentionMsMax = math.MaxInt64 / int64(time.Millisecond)
)

// Unlimited is the retention that keeps everything.
const Unlimited = -1

// Config are the settings of one topic. Zero fields mean the broker's default;
// Unlimited (-1) lifts a retention.
type Config struct {
	Partitions     uint32           `json:"partitions"`
	Visibility     message.AckLevel `json:"visibility"`
	RetentionMs    int64            `json:"retention_ms"`
	RetentionBytes int64            `json:"retention_bytes"` // of one partition
	SegmentBytes   int64            `json:"segment_bytes"`

	// What producers that were told nothing else are advised to do; the broker's
	// default where nothing is chosen, whatever that is at the time. Stored by
	// name, see storedTopic.
	Compression wire.Choice[message.Algorithm] `json:"-"`
	Level       wire.Choice[uint8]             `json:"-"` // of package compression
	Encoding    wire.Choice[message.Encoding]  `json:"-"`
	Strategy    wire.Choice[uint8]             `json:"-"` // of package compression
}

// Retention is the engine's form of the settings.
func (c *Config) Retention() storage.Retention {
	return storage.Retention{MaxAge: time.Duration(min(max(c.RetentionMs, 0), RetentionMsMax)) * time.Millisecond, MaxBytes: max(c.RetentionBytes, 0)}
}

// complete fills the defaults in and checks the result against what the engine
// can give.
func (c Config) complete(d Config, eng storage.Engine) (Config, error) {
	bad := func(field, format string, args ...any) error {
		return fault.New(fault.Invalid, "check topic settings").WithField(field).WithDetail(format, args...)
	}
	if c.Partitions == 0 {
		c.Partitions = max(d.Partitions, 1)
	}
	if c.Partitions > PartitionsMax {
		return c, fault.New(fault.TooLarge, "check topic settings").WithField("partitions").WithLimit(int64(c.Partitions), PartitionsMax)
	}
	if c.Visibility == message.AckNone {
		c.Visibility = d.Visibility
	}
	if c.Visibility == message.AckNone {
		c.Visibility = eng.Levels().Strongest()
	}
	if !eng.Levels().Has(c.Visibility) {
		return c, fault.New(fault.LevelUnavailable, "check topic settings").WithField("visibility").
			WithDetail("engine %s gives %s, not %s", eng.Name(), eng.Levels(), c.Visibility)
	}
	for _, f := range []struct {
		name string
		v    *int64
		d    int64
		max  int64
	}{{"retention_ms", &c.RetentionMs, d.RetentionMs, RetentionMsMax}, {"retention_bytes", &c.RetentionBytes, d.RetentionBytes, math.MaxInt64}} {
		if *f.v == 0 {
			*f.v = f.d
		}
		if *f.v < Unlimited {
			return c, bad(f.name, "%d is neither positive nor -1 (unlimited)", *f.v)
		}
		if *f.v > f.max {
			return c, fault.New(fault.TooLarge, "check topic settings").WithField(f.name).WithLimit(*f.v, f.max)
		}
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = d.SegmentBytes
	}
	if c.SegmentBytes > SegmentBytesMax {
		return c, fault.New(fault.TooLarge, "check topic settings").WithField("segment_bytes").WithLimit(c.SegmentBytes, SegmentBytesMax)
	}
	if c.SegmentBytes < SegmentBytesMin {
		return c, fault.New(fault.Invalid, "check topic settings").WithField("segment_bytes").WithLimit(c.SegmentBytes, SegmentBytesMin)
	}
	return c, nil
}
