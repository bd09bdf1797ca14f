// Package evloop moves bytes between many connections and a Handler that knows
// the protocol. It knows units (a length and that many bytes), output queues,
// limits and timeouts, and nothing of what the bytes mean.
//
// A Server has N loops. Each loop is one goroutine that owns its connections;
// every Handler method runs on that goroutine, so a handler needs no locks for
// what belongs to its loop. Loop methods may be called only from there too,
// except Wake, ID and those that say otherwise.
//
// An idle connection owns a record of 64 bytes and nothing else: no goroutine,
// no timer, no buffer. Units are handed out where the kernel wrote them, in the
// loop's receive chunk; only a unit cut at a read's end is kept aside, inline up
// to 16 bytes and else in a borrowed chunk that grows with what has arrived,
// never with what was declared. Output is queued per turn and written with one
// system call per connection.
//
// A turn of a loop is: wait for events; read and hand out units, at most four
// reads per connection; Woken, Tick; TurnEnd; write the queued output. Closed
// is called at defined points between these, never inside another call of the
// handler.
//
// On Linux the loops use epoll directly. Engine "std" runs the same loops over
// any net.Listener, with goroutines per connection that do the waiting: it is
// for other systems and for TLS, and costs several KB per connection.
package evloop

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/portask/portask/broker/mempool"
)

// Conn names one connection of one loop. It is a value to keep and compare; it
// goes stale when the connection ends, and a stale Conn is refused everywhere
// even if its place was taken by another connection.
type Conn struct{ Index, Gen uint32 }

// Handler is the protocol above a loop. Each loop has its own. All methods run
// on the loop's goroutine, one at a time, and must not block: every connection
// of the loop waits for them.
type Handler interface {
	// Opened announces a new connection. User(c) is zeroed.
	Opened(l *Loop, c Conn)

	// Size returns the whole length of the unit that begins with head, the
	// bytes present so far (at least Options.MinHead), or 0 if more bytes are
	// needed to tell. It is asked again for the same unit as bytes arrive. An
	// error closes the connection as Unit's does.
	Size(l *Loop, c Conn, head []byte) (n int, err error)

	// Unit is given one whole unit, in order. unit lies in ch and is valid
	// during the call, longer only if the handler retains ch. The handler may
	// write to unit (a broker stamps batches in place), not behind it. An error
	// ends the connection after its pending output was tried, with that error
	// as the reason.
	Unit(l *Loop, c Conn, unit []byte, ch *mempool.Chunk) error

	// Writable says that the socket takes data again, after Writev or SendFile
	// reported blocked.
	Writable(l *Loop, c Conn)

	// Closed is the last call for c; User(c) may still be read.
	Closed(l *Loop, c Conn, reason error)

	// TurnEnd runs once per turn after all units of the turn and before the
	// output is written: appends and deliveries are flushed here.
	TurnEnd(l *Loop)

	// Woken runs after Wake, once for any number of Wakes since the last.
	Woken(l *Loop)

	// Tick runs about every 100 ms while there is activity, when WantTick asked
	// for it, and about once a second while there are idle connections. now is
	// Loop.Now.
	Tick(l *Loop, now int64)
}

// Engines.
const (
	EngineEpoll = "epoll" // Linux
	EngineStd   = "std"   // goroutines over net.Conn, everywhere
)

// Options configure a Server. Zero fields take the defaults named here; a
// negative timeout means none.
type Options struct {
	// Loops is the number of loops; default GOMAXPROCS.
	Loops int
	// Handler makes the handler of each loop. Required.
	Handler func(loop int) Handler
	// Pool lends all buffers; whoever made it calls its Tune. Default: a pool of
	// its own with default bounds, which keeps what it took until Close.
	Pool *mempool.Pool
	// Engine is "epoll" or "std"; default epoll where it exists.
	Engine string

	// MinHead is how many bytes Size needs at least; default 4, at most 16.
	MinHead int
	// ReadBytes is the size of a loop's receive chunk, default 256 KiB; it
	// doubles up to ReadMaxBytes (default 1 MiB) while reads fill it.
	ReadBytes, ReadMaxBytes int
	// UnitMaxBytes bounds a unit whatever the handler's Size says; default
	// 16 MiB.
	UnitMaxBytes int

	// MaxConns bounds the server's connections, default 1,000,000. Beyond it
	// connections are accepted and closed at once, so that the peer knows.
	MaxConns int
	// InBudgetBytes bounds the chunks that incomplete units of one loop borrow,
	// default 8 MiB. Over it, connections are left unread, except that units of up
	// to 256 KiB may take half as much again, and one connection at a time may
	// exceed the budget by its own unit, so that a full budget cannot stand
	// still. When that reserve is used up too, PressedTimeout holds.
	InBudgetBytes int
	// OutBudgetBytes bounds the queued output of one loop, default 8 MiB. Over it,
	// the connection with the largest queue is ended.
	OutBudgetBytes int
	// OutPerConnBytes bounds the queued output of a connection, default
	// 256 KiB. A single Send into an empty queue may exceed it.
	OutPerConnBytes int

	// IdleTimeout closes a connection that sent no whole unit for so long;
	// default 5 min. SetIdle overrides it for one connection.
	IdleTimeout time.Duration
	// PartialTimeout bounds the time from a unit's first byte to its last;
	// default 30 s. It is not extended by progress: a peer that sends a byte a
	// second is late all the same.
	PartialTimeout time.Duration
	// PressedTimeout bounds it instead while input memory is used up and others
	// wait for it, so that peers that leave their units incomplete cannot stop
	// them for longer; default 1 s. Five times that if only units over 256 KiB
	// have to wait.
	PressedTimeout time.Duration
	// PreTimeout bounds the time from accept to Established; default 5 s.
	PreTimeout time.Duration
	// CloseTimeout bounds how long CloseAfterFlush waits for the queue to drain
	// and the peer to close; default 5 s.
	CloseTimeout time.Duration

	// TCP options, set on the listener and inherited by connections.
	Delay     bool          // leave Nagle's algorithm on
	KeepAlive time.Duration // idle time before probes, default 60 s, < 0 off
	// UserTimeout ends a connection whose peer left data unacknowledged, or its
	// window closed, for so long; default 60 s, < 0 off. Linux only.
	UserTimeout     time.Duration
	SendBufferBytes int // SO_SNDBUF; 0 leaves the system's autotuning
	RecvBufferBytes int // SO_RCVBUF; 0 leaves the system's autotuning

	// wrap lets tests stand between a loop and its sockets.
	wrap func(loop int, n netio) netio
}

// WithDefaults returns o with the numbers and timeouts that are zero replaced by
// their defaults.
func (o Options) WithDefaults() Options {
	defInt := func(p *int, def int) {
		if *p <= 0 {
			*p = def
		}
	}
	defTime := func(p *time.Duration, def time.Duration) {
		if *p == 0 {
			*p = def
		}
	}
	defInt(&o.Loops, runtime.GOMAXPROCS(0))
	defInt(&o.MinHead, 4)
	defInt(&o.ReadBytes, 256<<10)
	defInt(&o.ReadMaxBytes, max(1<<20, o.ReadBytes))
	defInt(&o.UnitMaxBytes, 16<<20)
	defInt(&o.MaxConns, 1_000_000)
	defInt(&o.InBudgetBytes, 8<<20)
	defInt(&o.OutBudgetBytes, 8<<20)
	defInt(&o.OutPerConnBytes, 256<<10)
	defTime(&o.IdleTimeout, 5*time.Minute)
	defTime(&o.PartialTimeout, 30*time.Second)
	defTime(&o.PressedTimeout, time.Second)
	defTime(&o.PreTimeout, 5*time.Second)
	defTime(&o.CloseTimeout, 5*time.Second)
	defTime(&o.KeepAlive, time.Minute)
	defTime(&o.UserTimeout, time.Minute)
	return o
}

func (o *Options) fill() error {
	if o.Handler == nil {
		return errors.New("evloop: Options.Handler is required")
	}
	*o = o.WithDefaults()
	for _, t := range []*time.Duration{&o.IdleTimeout, &o.PartialTimeout, &o.PressedTimeout, &o.PreTimeout, &o.CloseTimeout, &o.KeepAlive, &o.UserTimeout} {
		*t = max(0, *t)
	}
	if o.MinHead > inlineBytes {
		return fmt.Errorf("evloop: Options.MinHead %d is over %d", o.MinHead, inlineBytes)
	}
	if o.UnitMaxBytes > mempool.MaxChunkBytes {
		return fmt.Errorf("evloop: Options.UnitMaxBytes %d is over %d", o.UnitMaxBytes, mempool.MaxChunkBytes)
	}
	if o.ReadMaxBytes < o.ReadBytes || o.ReadMaxBytes > mempool.MaxChunkBytes {
		return fmt.Errorf("evloop: Options.ReadMaxBytes %d is not within ReadBytes %d and %d",
			o.ReadMaxBytes, o.ReadBytes, mempool.MaxChunkBytes)
	}
	if o.Engine == "" {
		o.Engine = defaultEngine
	}
	if o.Pool == nil {
		o.Pool = mempool.NewPool(mempool.Options{})
	}
	return nil
}

// Reasons given to Closed, besides the handler's own and the system's errors.
// io.EOF says that the peer closed between units, io.ErrUnexpectedEOF within one.
var (
	ErrClosed       = errors.New("evloop: connection closed")       // also: the Conn is stale
	ErrServerClosed = errors.New("evloop: server closed")           // Close, or Shutdown ran out of time
	ErrIdle         = errors.New("evloop: idle for too long")       // IdleTimeout, SetIdle
	ErrPartial      = errors.New("evloop: unit took too long")      // PartialTimeout, PressedTimeout
	ErrPre          = errors.New("evloop: not established in time") // PreTimeout
	ErrSlow         = errors.New("evloop: slow consumer")           // see SlowError
	ErrMemory       = errors.New("evloop: out of memory")           // the pool's cap
	ErrUnit         = errors.New("evloop: unit too large")          // see UnitError
)

// SlowError is the reason of a connection closed because its output could be
// neither written nor queued. It is an ErrSlow.
type SlowError struct {
	Bytes int    // queued, the refused ones included
	Limit int    // what Bound allows
	Bound string // "connection", "loop" or "pool"
}

func (e *SlowError) Error() string {
	return fmt.Sprintf("%v: %d bytes of output, limit of the %s %d", ErrSlow, e.Bytes, e.Bound, e.Limit)
}

// Is makes errors.Is(err, ErrSlow) hold.
func (e *SlowError) Is(target error) bool { return target == ErrSlow }

// UnitError is the reason of a connection whose unit is declared larger than
// UnitMaxBytes, or still has no length after 64 KiB. It is an ErrUnit.
type UnitError struct{ Bytes, Limit int }

func (e *UnitError) Error() string {
	return fmt.Sprintf("%v: %d bytes, limit %d", ErrUnit, e.Bytes, e.Limit)
}

// Is makes errors.Is(err, ErrUnit) hold.
func (e *UnitError) Is(target error) bool { return target == ErrUnit }
