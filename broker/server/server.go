// Package server is the broker behind a socket: sessions, producers,
// subscriptions and the frames between them, on the event loops of package
// evloop. What a batch means to a partition is package partition's; bytes at
// rest are the engine's.
//
// # How a batch passes
//
// A PRODUCE frame lies in its loop's receive chunk. The batch in it is checked
// (checksums, limits), given its offset, and at the end of the loop's turn
// written to the log from where it lies, together with all others of the turn
// for that partition. The chunk stays alive a while as the partition's tail:
// subscriptions that are up to date get the same bytes by one writev, whoever
// is behind gets them from the log by sendfile. Nothing on this path allocates
// or copies a batch in the broker.
//
// # Who owns what
//
// A loop owns its sessions, producers and subscriptions; other goroutines leave
// it mail (mailbox). Partitions have their own short lock. Lock order: topic
// catalogue, partition, committer, bus; no lock is held over I/O, except
// the catalogue's over its own changes, which no event loop waits for.
package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portask/portask/broker/bus"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/monitor/latency"
	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// Server is a running broker.
type Server struct {
	opts      Options
	ln        net.Listener
	ev        *evloop.Server
	loops     []*loop
	cat       *topic.Catalogue
	committer *partition.Committer
	work      *bus.Pool // of requests and reads of history
	offload   offload
	pool      *mempool.Pool
	budget    budget
	began     time.Time
	live      atomic.Pointer[live]
	reloading sync.Mutex    // held by Reload
	reloaded  chan struct{} // tells housekeeping to look at live again
	low       atomic.Bool   // the engine asks to stop producing
	load      atomic.Uint32 // what producers are told, packed; see pressure.go
	changes   atomic.Uint32 // how often what producers are told has changed; see advice.go
	loadSkip  int           // looks at the load to be left out; owned by housekeeping
	loadOwed  bool          // the last change went out with answers only; owned by housekeeping
	choices   choices
	// loadWanted counts the producers that are told the load.
	loadWanted atomic.Int32
	space      atomic.Pointer[Space]
	serving    atomic.Bool   // Serve was called
	latency    *latency.Set  // nil: not measured
	goodbye    time.Duration // what clients have after GOAWAY
	stop       chan struct{}
	stopOnce   sync.Once
	closeOnce  sync.Once
	closeErr   error
	wg         sync.WaitGroup // housekeeping
}

// New opens the engine's topics and listens; Serve begins to accept.
func New(o Options) (*Server, error) {
	s, err := build(o)
	if err != nil {
		return nil, err
	}
	if err := s.listen(); err != nil {
		return nil, errors.Join(err, s.teardown())
	}
	s.checkSpace()
	s.wg.Go(s.housekeep)
	return s, nil
}

// build makes everything but the socket side.
func build(o Options) (*Server, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	s := &Server{opts: o, began: time.Now(), goodbye: defaultGoodbye, stop: make(chan struct{}), reloaded: make(chan struct{}, 1)}
	s.live.Store(o.live())
	s.space.Store(new(Space))
	s.load.Store(packLoad(wire.UnknownLoad))
	s.budget.fill(o.ProduceBytes)
	if o.Measure {
		s.latency = latency.NewSet(o.Loops)
	}
	o.Committer.Latency = s.latency
	s.committer = partition.NewCommitter(o.Committer)
	for i := range o.Loops {
		s.loops = append(s.loops, newLoop(s, i))
	}
	var err error
	s.cat, err = topic.Open(topic.Options{Engine: o.Engine, Sink: s, Committer: s.committer, Defaults: o.Topics, Limits: o.Limits, Logger: o.Logger})
	if err != nil {
		s.committer.Close()
		return nil, err
	}
	for _, l := range s.loops {
		l.msg.helloOK = wire.HelloOK{Version: wire.Version, MaxBatch: uint32(o.Limits.BatchBytes), MaxMessage: uint32(o.Limits.MessageBytes),
			ServerVersion: o.Version, ClusterID: s.cat.ClusterID(), NodeID: o.NodeID, Opcodes: wire.SupportedOpcodes()}
	}
	s.work, s.offload = newWork(o.Workers), newOffload()
	return s, nil
}

func (s *Server) listen() error {
	o := &s.opts
	ln, err := evloop.Listen("tcp", o.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	// Half of the producers' credit may be in frames that are not whole yet.
	partial := max(8<<20, int(o.ProduceBytes)/(2*o.Loops))
	s.pool = mempool.NewPool(mempool.Options{KeepBytes: o.TailBytes, MaxBytes: int(o.poolMaxBytes()), Plain: o.plainMemory})
	eo := o.Network
	eo.Loops, eo.Handler, eo.Pool, eo.Engine = o.Loops, func(i int) evloop.Handler { return handler{s.loops[i]} }, s.pool, o.EventEngine
	eo.ReadBytes, eo.MaxConns, eo.UnitMaxBytes, eo.InBudgetBytes = o.ReceiveBytes, o.MaxConns, wire.DefaultMaxFrame+4, partial
	s.ev, err = evloop.New(ln, eo)
	if err != nil {
		return errors.Join(fmt.Errorf("start event loops: %w", err), ln.Close())
	}
	s.ln = ln
	for i, l := range s.ev.Loops() {
		s.loops[i].ev = l
	}
	return nil
}

// Addr is the address the server listens on.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Serve accepts connections until Shutdown or Close; it then returns nil.
func (s *Server) Serve() error {
	s.serving.Store(true)
	return s.ev.Serve()
}

// housekeep applies retention and watches the disk.
func (s *Server) housekeep() {
	space := time.NewTicker(time.Second)
	defer space.Stop()
	retain := time.NewTicker(s.live.Load().retentionEvery)
	defer retain.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.reloaded:
			retain.Reset(s.live.Load().retentionEvery)
		case now := <-space.C:
			s.checkSpace()
			s.measureLoad()
			s.pool.Tune(now)
		case now := <-retain.C:
			if err := s.cat.Retain(now); err != nil {
				s.opts.Logger.Error("retention failed", "err", err)
			}
			s.choices.sweep(func(t *topic.Topic) bool {
				now, err := s.cat.Lookup(t.Name)
				return err == nil && now == t
			})
		}
	}
}

func (s *Server) checkSpace() {
	free, total, low, err := s.opts.Engine.Space()
	if err != nil {
		s.opts.Logger.Error("cannot read the free space", "err", err)
		return
	}
	s.space.Store(&Space{FreeBytes: free, TotalBytes: total, Full: low})
	if s.low.Swap(low) != low {
		if low {
			s.opts.Logger.Warn("storage is nearly full: producing stops, consuming goes on", "free", free, "total", total)
		} else {
			s.opts.Logger.Info("storage has space again: producing goes on", "free", free, "total", total)
		}
	}
}

// Shutdown stops accepting, tells every client to go away, lets batches that
// were received be stored and acknowledged, and closes. ctx bounds all of it.
// The engine stays open: it is the caller's.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopOnce.Do(func() { close(s.stop) })
	for _, l := range s.loops {
		l.call(func(l *loop) { l.startDrain() })
	}
	err := s.ev.Shutdown(ctx)
	return errors.Join(err, s.Close())
}

// Close ends the server at once: connections are cut, what was received is
// stored. It returns after every goroutine of the server has ended.
func (s *Server) Close() error {
	s.closeOnce.Do(func() {
		s.stopOnce.Do(func() { close(s.stop) })
		s.wg.Wait()
		s.ev.Close()
		s.closeErr = s.teardown()
	})
	return s.closeErr
}

// teardown ends what build began, after the event loops have ended.
func (s *Server) teardown() error {
	s.work.Close()
	for _, l := range s.loops {
		for _, r := range l.box.reads.Take(nil) {
			releaseRuns(r.runs)
		}
		// A loop that ended in mid-turn may still hold writer roles.
		for _, p := range l.flushes {
			s.committer.Write(p)
		}
	}
	err := s.cat.Close()
	s.committer.Close()
	if s.pool != nil {
		s.pool.Close()
	}
	return err
}

// startDrain says goodbye to every connection of the loop. What clients have in
// flight is still taken and answered; they close when they are done, and are cut
// when the time GOAWAY gave them is over.
func (l *loop) startDrain() {
	if l.drain {
		return
	}
	l.drain = true
	l.drainEnd = l.now() + l.srv.goodbye.Milliseconds()
	bye := wire.GoAway{Reason: wire.GoAwayShuttingDown, DrainMs: uint32(l.srv.goodbye.Milliseconds())}
	l.ev.Each(func(c evloop.Conn) {
		if l.ev.User(c)[wordState]&stateMask != stateOpen {
			l.ev.Close(c, fault.ShuttingDown)
			return
		}
		_ = l.send(c, wire.Header{Opcode: wire.OpGoAway}, &bye) // a connection that cannot take it ends
	})
	l.ev.WantTick(l.srv.goodbye)
}

// endDrain ends what is left when the goodbye is over.
func (l *loop) endDrain() {
	l.ev.Each(func(c evloop.Conn) { l.ev.CloseAfterFlush(c, fault.ShuttingDown) })
}

// defaultGoodbye is how long a client has after GOAWAY.
const defaultGoodbye = 2 * time.Second
