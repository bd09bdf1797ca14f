package server

import (
	"github.com/portask/portask/broker/bus"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/wire"
)

// offload bounds what runs away from the event loops because it may touch the
// disk or take long: changes of the catalogue, metadata, look-ups by time.
// Whoever exceeds a bound is refused, and may try again.
type offload struct {
	requests *bus.Credit // that wait or run
	waiting  *bus.Credit // bytes of their frames
	unsent   *bus.Credit // bytes of long answers that no event loop has sent yet
}

const (
	requestsMax = 1024
	// waitingBytes bounds the memory of the requests that wait, and unsentBytes
	// that of long answers, but for one of each worker: METADATA is refused then.
	waitingBytes = 32 << 20
	unsentBytes  = 32 << 20
	// longAnswer is the size from which an answer is sent when the connection's
	// queue is empty, frame by frame, instead of at once.
	longAnswer = 64 << 10
)

func newOffload() offload {
	return offload{
		requests: bus.NewCredit(requestsMax, fault.ResourceExhausted, "session", "requests", "requests wait"),
		waiting:  bus.NewCredit(waitingBytes, fault.MemoryExhausted, "session", "requests", "requests in memory"),
		unsent:   bus.NewCredit(unsentBytes, fault.MemoryExhausted, "session", "requests", "answers in memory"),
	}
}

// async runs f on a worker and its result on the loop, which is to call answered
// when the answer is sent. An error is answered as the request's. A connection
// with many such requests is not read until some are answered.
func (l *loop) async(c evloop.Conn, h wire.Header, f func() (func(*loop), error)) error {
	o, size := &l.srv.offload, int64(h.FrameBytes())
	if err := o.waiting.Take(size); err != nil {
		return err
	}
	if err := o.requests.Take(1); err != nil {
		o.waiting.Give(size)
		return err
	}
	t := new(bus.Task)
	t.Bind(l.srv.work, laneRequest, func() bool {
		then, err := f()
		o.waiting.Give(size)
		o.requests.Give(1)
		l.call(func(l *loop) {
			if err != nil {
				l.fail(c, h, err)
				l.answered(c, 1)
			} else {
				then(l)
			}
		})
		return false
	})
	t.Schedule() // the workers are there as long as the loops
	u := l.ev.User(c)
	if u[wordState] += oneRequest; u[wordState]&requestsMask >= requestsPerConn*oneRequest {
		l.ev.Pause(c)
	}
	return nil
}

// answered says that n requests of async are done with.
func (l *loop) answered(c evloop.Conn, n uint32) {
	u := l.ev.User(c)
	if u == nil {
		return
	}
	before := u[wordState] & requestsMask
	u[wordState] -= n * oneRequest
	if before >= requestsPerConn*oneRequest && before-n*oneRequest < requestsPerConn*oneRequest {
		l.ev.Resume(c)
	}
}
