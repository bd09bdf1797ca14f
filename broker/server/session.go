package server

import (
	"errors"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/wire"
)

// A session is four words in the connection's record (evloop.User); an idle
// connection owns nothing else here but its producers and subscriptions.
//
//	word 0  state: 0 preface, 1 HELLO, 2 open | requests elsewhere << 2 | open handles << 8
//	word 1  first producer of its list, 0 = none
//	word 2  first subscription of its list, 0 = none
//	word 3  largest frame it takes, in KiB | waiting fetches << 16
const (
	wordState = iota
	wordProducers
	wordSubs
	wordFrame
)

const (
	statePreface = iota
	stateHello
	stateOpen
	stateMask = 3
)

const (
	oneRequest   = 1 << 2 // in wordState
	requestsMask = 63 << 2
	// requestsPerConn is how many requests of a connection may be under way on
	// other goroutines, or answered and not read: it is not read beyond.
	requestsPerConn = 16

	oneHandle = 1 << 8  // in wordState
	oneFetch  = 1 << 16 // in wordFrame
	frameMask = oneFetch - 1

	// handlesPerConn bounds the producers, subscriptions and waiting fetches of a
	// connection: a subscription to every partition a broker can have, twice.
	handlesPerConn = 1 << 15
	// fetchesPerConn bounds the fetches among them: each tick looks at all.
	fetchesPerConn = 256
)

// takeHandle counts a new handle of the connection.
func takeHandle(u *[4]uint32, op string) error {
	if n := int64(u[wordState]/oneHandle) + 1; n > handlesPerConn {
		return fault.New(fault.ResourceExhausted, op).WithField("handles").
			WithDetail("of one connection").WithLimit(n, handlesPerConn)
	}
	u[wordState] += oneHandle
	return nil
}

// maxFrame is the largest frame that the peer takes, in bytes.
func maxFrame(u *[4]uint32) int { return int(u[wordFrame]&frameMask) << 10 }

func (l *loop) opened(c evloop.Conn) {
	l.stats.opened++
	if l.drain {
		l.ev.Close(c, fault.ShuttingDown)
	}
}

// size tells how long the preface or frame at the beginning of head is.
func (l *loop) size(c evloop.Conn, head []byte) (int, error) {
	u := l.ev.User(c)
	switch u[wordState] & stateMask {
	case statePreface:
		switch wire.Detect(head) {
		case wire.KindShort:
			return 0, nil
		case wire.KindPortask:
			return wire.PrefaceBytes, nil
		case wire.KindHTTP:
			return 0, l.refuse(c, wire.HTTPAnswer(), "an HTTP request on the Portask port")
		case wire.KindTLS:
			return 0, l.refuse(c, wire.TLSAlert(), "a TLS hello on the plain port")
		default:
			return 0, l.fatal(c, wire.Header{}, fault.New(fault.ProtocolViolation, "preface").WithField("magic").
				WithDetail("the connection must begin with \"PTSK\""))
		}
	case stateHello:
		n, err := wire.FrameBytes(head, wire.PreAuthFrameBytes)
		if err != nil {
			return 0, l.fatal(c, wire.Header{}, err)
		}
		return n, nil
	default:
		n, err := wire.FrameBytes(head, wire.DefaultMaxFrame)
		if err != nil {
			return 0, l.fatal(c, wire.Header{}, err)
		}
		return n, nil
	}
}

// refuse answers in the peer's own language and ends the connection.
func (l *loop) refuse(c evloop.Conn, answer []byte, why string) error {
	_ = l.ev.Send(c, answer) // the connection ends in any case
	return fault.New(fault.ProtocolViolation, "preface").WithDetail("%s", why)
}

// fatal sends an ERROR and returns the error that ends the connection.
func (l *loop) fatal(c evloop.Conn, h wire.Header, err error) error {
	l.failWith(c, h, err, fault.BitClosesConnection)
	return err
}

// fail answers a request with an ERROR frame.
func (l *loop) fail(c evloop.Conn, h wire.Header, err error) { l.failWith(c, h, err, 0) }

func (l *loop) failWith(c evloop.Conn, h wire.Header, err error, bits fault.Bits) {
	l.stats.errors++
	e := wire.FromError(err, h.Opcode)
	l.shared.failed[min(int(e.Code), len(l.shared.failed)-1)].Add(1)
	e.Bits |= bits
	_ = l.send(c, wire.Header{Opcode: wire.OpError.Response(), Correlation: h.Correlation, Handle: h.Handle}, &e)
}

// unit takes one whole preface or frame.
func (l *loop) unit(c evloop.Conn, b []byte, ch *mempool.Chunk) error {
	u := l.ev.User(c)
	if u[wordState] == statePreface {
		lo, hi, err := wire.ParsePreface(b)
		if err == nil {
			_, err = wire.Negotiate(lo, hi)
		}
		if err != nil {
			return l.fatal(c, wire.Header{}, err)
		}
		u[wordState] = stateHello
		return nil
	}
	h, err := wire.ParseHeader(b, wire.DefaultMaxFrame)
	if err != nil {
		return l.fatal(c, h, err)
	}
	l.stats.frames++
	if u[wordState] == stateHello {
		return l.hello(c, u, h, wire.PayloadOf(b))
	}
	if err := h.CheckVersion(); err != nil {
		l.fail(c, h, err)
		return nil
	}
	if h.Opcode == wire.OpProduce {
		return l.produce(c, h, b, ch)
	}
	err = l.frame(c, u, h, wire.PayloadOf(b))
	if err == nil {
		return nil
	}
	if closes(err) {
		return l.fatal(c, h, err)
	}
	l.fail(c, h, err)
	return nil
}

// closes reports whether an error ends the connection it happened on.
func closes(err error) bool {
	var e *fault.Error
	if errors.As(err, &e) {
		return e.Bits()&fault.BitClosesConnection != 0
	}
	return fault.CodeOf(err).Info().ClosesConnection
}

func (l *loop) hello(c evloop.Conn, u *[4]uint32, h wire.Header, payload []byte) error {
	if h.Opcode != wire.OpHello {
		return l.fatal(c, h, fault.New(fault.ProtocolViolation, "hello").WithField("opcode").
			WithDetail("the first frame must be HELLO, not %s", h.Opcode))
	}
	if err := h.CheckVersion(); err != nil {
		return l.fatal(c, h, err) // errors of HELLO always close
	}
	m := &l.msg.hello
	if err := m.Parse(payload); err != nil {
		return l.fatal(c, h, err)
	}
	frame := wire.NegotiateMaxFrame(wire.DefaultMaxFrame, m.MaxFrame)
	heartbeat := wire.NegotiateHeartbeat(m.HeartbeatMs)
	u[wordState] = stateOpen
	u[wordFrame] = frame >> 10
	l.ev.Established(c)
	l.ev.SetIdle(c, wire.HeartbeatMisses*time.Duration(heartbeat)*time.Millisecond)
	ok := &l.msg.helloOK // all but the connection's own values was filled in by newLoop
	ok.MaxFrame, ok.HeartbeatMs = frame, heartbeat
	ok.Load = unpackLoad(l.srv.load.Load())
	ok.HasLoad = ok.Load != wire.UnknownLoad
	return l.send(c, wire.Header{Opcode: wire.OpHello.Response(), Correlation: h.Correlation}, ok)
}

// frame takes one frame of an open session. An error is answered with an ERROR
// frame; it ends the connection if its table entry says so.
func (l *loop) frame(c evloop.Conn, u *[4]uint32, h wire.Header, payload []byte) error {
	switch h.Opcode {
	case wire.OpCredit:
		return l.credit(c, h, payload)
	case wire.OpPing:
		var m wire.Ping
		if err := m.Parse(payload); err != nil {
			return err
		}
		return l.send(c, wire.Header{Opcode: wire.OpPing.Response(), Correlation: h.Correlation}, &m)
	case wire.OpPing.Response():
		return new(wire.Ping).Parse(payload)
	case wire.OpOpenProducer:
		return l.openProducer(c, u, h, payload)
	case wire.OpCloseProducer:
		return l.closeProducer(c, u, h, payload)
	case wire.OpReport:
		return l.report(c, h, payload)
	case wire.OpSubscribe:
		return l.subscribe(c, u, h, payload)
	case wire.OpUnsubscribe:
		return l.unsubscribe(c, u, h, payload)
	case wire.OpFetch:
		return l.fetch(c, u, h, payload)
	case wire.OpMetadata, wire.OpListOffsets, wire.OpTopicCreate, wire.OpTopicAlter, wire.OpTopicDelete,
		wire.OpDictionaryList, wire.OpDictionaryGet, wire.OpDictionaryAdd, wire.OpDictionaryUse, wire.OpPolicyGet:
		return l.admin(c, h, payload)
	case wire.OpClose:
		if err := new(wire.Close).Parse(payload); err != nil {
			return err
		}
		if err := l.send(c, wire.Header{Opcode: wire.OpClose.Response(), Correlation: h.Correlation}, &wire.Empty{}); err != nil {
			return nil //nolint:nilerr // the connection is gone already
		}
		l.ev.CloseAfterFlush(c, nil)
		return nil
	case wire.OpHello:
		return fault.New(fault.ProtocolViolation, "hello").WithField("opcode").WithDetail("HELLO was sent already")
	default:
		return fault.New(fault.NotSupported, "session").WithField("opcode").WithDetail("%s is not supported", h.Opcode)
	}
}

// closed takes a session's producers and subscriptions apart.
func (l *loop) closed(c evloop.Conn, reason error) {
	l.stats.closed++
	u := l.ev.User(c)
	if u != nil {
		for i := u[wordProducers]; i != 0; {
			p := l.prods.At(i)
			next := p.next
			l.dropProducer(i, p)
			i = next
		}
		for i := u[wordSubs]; i != 0; {
			s := l.subs.At(i)
			next := s.connNext
			l.dropSub(i, s)
			i = next
		}
	}
	if a := l.long[c.Index]; a != nil {
		delete(l.long, c.Index)
		l.forgetLong(a)
	}
	if d := l.half[c.Index]; d != nil {
		delete(l.half, c.Index)
		l.recycle(d)
	}
	if reason != nil && l.srv.live.Load().debug {
		l.srv.opts.Logger.Debug("connection closed", "loop", l.id, "reason", reason)
	}
}

func errSlow(after time.Duration) error {
	return fault.New(fault.SlowPeer, "deliver").WithField("slow_consumer").WithDetail("took nothing of a frame for %v", after)
}
