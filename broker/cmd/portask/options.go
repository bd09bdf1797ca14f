package main

import (
	"log/slog"
	"math"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server"
	"github.com/portask/portask/broker/topic"
)

// options turns the flags into the server's options, without an engine. What
// the server checks by itself is not checked again here.
func (o *serveFlags) options(log *slog.Logger) (server.Options, error) {
	refuse := func(flag string, value, limit int64) error {
		return fault.New(fault.Invalid, "serve").WithField("--"+flag).WithLimit(value, limit)
	}
	limits := message.DefaultLimits()
	for _, f := range []struct {
		flag  string
		value int64
		to    *int
	}{
		{"max-batch", o.maxBatch, &limits.BatchBytes},
		{"max-message", o.maxMessage, &limits.MessageBytes},
	} {
		if f.value < 1 {
			return server.Options{}, refuse(f.flag, f.value, 1)
		}
		if f.value > math.MaxInt32 {
			return server.Options{}, refuse(f.flag, f.value, math.MaxInt32)
		}
		*f.to = int(f.value)
	}
	if err := limits.Validate(); err != nil {
		return server.Options{}, err
	}
	if o.tailMemory < 0 || o.tailMemory > math.MaxInt32 {
		return server.Options{}, refuse("tail-memory", o.tailMemory, math.MaxInt32)
	}
	if o.retention < 0 {
		return server.Options{}, refuse("default-retention", int64(o.retention), 0)
	}
	if o.shutdownTimeout <= 0 {
		return server.Options{}, refuse("shutdown-timeout", int64(o.shutdownTimeout), 1)
	}
	return server.Options{
		Listen:       o.listen,
		Insecure:     o.insecure,
		NodeID:       o.nodeID,
		Version:      versionText(),
		Logger:       log,
		Loops:        o.loops,
		EventEngine:  o.eventEngine,
		MaxConns:     o.maxConns,
		TailBytes:    int(o.tailMemory),
		ProduceBytes: o.produceMemory,
		SlowConsumer: o.slowConsumer,
		Limits:       limits,
		Topics: topic.Config{
			Partitions:     o.partitions,
			RetentionMs:    retentionMs(o.retention),
			RetentionBytes: o.retentionBytes,
			SegmentBytes:   o.segment,
		},
	}, nil
}

// retentionMs is an age as topics keep it; 0 or less is for ever. An age under
// a millisecond counts as one.
func retentionMs(d time.Duration) int64 {
	if d <= 0 {
		return topic.Unlimited
	}
	return max(1, d.Milliseconds())
}
