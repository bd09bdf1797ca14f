package client

import (
	"context"
	"log/slog"
	"net"
	"runtime"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/message/id"
	"github.com/portask/portask/broker/serialization"
	"github.com/portask/portask/broker/wire"
)

// Option changes a Client's defaults.
type Option func(*config)

// config is a Client's configuration, immutable after Dial.
type config struct {
	name         string
	log          *slog.Logger
	dialTimeout  time.Duration
	request      time.Duration
	conns        int
	backoffLeast time.Duration
	backoffMost  time.Duration
	inFlight     uint32
	encoders     int
	heartbeat    time.Duration
	lim          message.Limits
	codecs       *serialization.Registry
	artefact     []byte       // of adaptive compression; nil: the embedded one
	decisions    *decisionLog // nil: none
	dial         func(ctx context.Context, network, addr string) (net.Conn, error)
}

func defaults() config {
	return config{
		name:         "portask-go-" + id.NewShort().String(),
		log:          slog.New(slog.DiscardHandler),
		dialTimeout:  5 * time.Second,
		request:      30 * time.Second,
		conns:        1,
		encoders:     runtime.GOMAXPROCS(0),
		backoffLeast: 20 * time.Millisecond,
		backoffMost:  2 * time.Second,
		lim:          message.DefaultLimits(),
		codecs:       serialization.Default(),
		dial:         new(net.Dialer).DialContext,
	}
}

// WithName sets the name the broker shows for this client in logs and metrics,
// at most 256 bytes. Default "portask-go-" and eight characters that tell this
// client from others.
func WithName(name string) Option { return func(c *config) { c.name = name } }

// WithLogger makes the client log losses, reconnects and back-pressure.
// Default: nothing is logged.
func WithLogger(l *slog.Logger) Option { return func(c *config) { c.log = l } }

// WithTimeouts sets how long one attempt to connect may take, handshake
// included (default 5 s), and how long one request may stay unanswered (default
// 30 s). A produce unanswered for that long breaks the connection, so that it
// is sent again on a new one; other requests fail with fault.Timeout.
func WithTimeouts(dial, request time.Duration) Option {
	return func(c *config) { c.dialTimeout, c.request = dial, request }
}

// WithConns sets the number of connections, 1 to 64. Producers and consumers
// are spread over them in turn. Default 1: more help when one connection's
// reader or writer is busy all the time.
func WithConns(n int) Option { return func(c *config) { c.conns = n } }

// WithBackoff sets the wait before the first and the longest wait before a
// later attempt to reconnect or to send again. Each wait is drawn from the
// upper half of an interval that doubles every time. Default 20 ms and 2 s.
func WithBackoff(least, most time.Duration) Option {
	return func(c *config) { c.backoffLeast, c.backoffMost = least, most }
}

// WithMaxInFlightBytes sets the credit each Producer asks the broker for: bytes
// sent and not answered. The broker may grant less. Default 0: what the broker
// thinks right.
func WithMaxInFlightBytes(n uint32) Option { return func(c *config) { c.inFlight = n } }

// WithEncoders bounds the goroutines that compress batches of the client's
// producers while these wait behind others, 0 to 1024; they end when there is
// nothing to compress. With 0 each producer compresses on its own goroutine,
// between sending one batch and the next. Default GOMAXPROCS.
func WithEncoders(n int) Option { return func(c *config) { c.encoders = n } }

// WithHeartbeat asks the broker for an interval between signs of life. The
// broker is taken for dead after three without one. Default 0: its own, 10 s.
func WithHeartbeat(d time.Duration) Option { return func(c *config) { c.heartbeat = d } }

// WithLimits replaces the limits on batches received and sent. Default
// message.DefaultLimits.
func WithLimits(l message.Limits) Option { return func(c *config) { c.lim = l } }

// WithCodecs replaces the codecs of Producer.Encode and Consumer.Decode, for
// other options or limits. Default serialization.Default.
func WithCodecs(r *serialization.Registry) Option { return func(c *config) { c.codecs = r } }

// WithDialer replaces the function that opens connections, for tests, proxies
// and sockets of other kinds.
func WithDialer(f func(ctx context.Context, network, addr string) (net.Conn, error)) Option {
	return func(c *config) { c.dial = f }
}

// validate reports the first option out of its range.
func (c *config) validate() error {
	bad := func(field, detail string, args ...any) error {
		return fault.New(fault.Invalid, "dial").WithField(field).WithDetail(detail, args...).
			WithCategory(fault.CategoryConfiguration)
	}
	switch {
	case len(c.name) > wire.MaxNameBytes:
		return fault.New(fault.TooLarge, "dial").WithField("name").WithLimit(int64(len(c.name)), wire.MaxNameBytes)
	case c.log == nil:
		return bad("logger", "is nil")
	case c.dialTimeout <= 0:
		return bad("dial timeout", "is %v, must be positive", c.dialTimeout)
	case c.request <= 0:
		return bad("request timeout", "is %v, must be positive", c.request)
	case c.conns < 1 || c.conns > maxConns:
		return fault.New(fault.Invalid, "dial").WithField("conns").WithLimit(int64(c.conns), maxConns)
	case c.backoffLeast <= 0 || c.backoffMost < c.backoffLeast:
		return bad("backoff", "%v to %v is no range", c.backoffLeast, c.backoffMost)
	case c.encoders < 0 || c.encoders > maxEncoders:
		return fault.New(fault.Invalid, "dial").WithField("encoders").WithLimit(int64(c.encoders), maxEncoders)
	case c.heartbeat < 0:
		return bad("heartbeat", "is %v, must not be negative", c.heartbeat)
	case c.codecs == nil:
		return bad("codecs", "is nil")
	case c.dial == nil:
		return bad("dialer", "is nil")
	}
	return c.lim.Validate()
}

// maxConns bounds WithConns: more connections to one node only cost it memory.
const maxConns = 64

// maxEncoders is far more than there are processors for.
const maxEncoders = 1024
