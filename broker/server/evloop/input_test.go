package evloop

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portask/portask/broker/mempool"
)

func TestEchoOfManySizes(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		f := serve(t, engine, func(int) Handler { return echo() }, func(o *Options) {
			o.OutPerConnBytes, o.OutBudgetBytes = 16<<20, 32<<20 // a large unit may come while others wait
		})
		c := f.dial()
		sizes := []int{4, 5, 15, 16, 17, 20, 63, 64, 65, 100, 1000, 4095, 4096, 4097, 16 << 10, 16<<10 + 1,
			64<<10 - 1, 64 << 10, 100_000, 256<<10 - 1, 256 << 10, 256<<10 + 1, 600_000, 1 << 20, 3<<20 + 7, 8<<20 + 4}
		for i, n := range sizes {
			u := unitOf(n, byte(i))
			var wg sync.WaitGroup
			wg.Go(func() { c.Write(u) })
			mustReadUnit(t, c, u)
			wg.Wait()
		}
		// All at once, several times: units begin and end at all places of reads.
		var all []byte
		for round := range 3 {
			for i, n := range sizes {
				if n <= 1<<20 {
					all = append(all, unitOf(n+round, byte(i+round))...)
				}
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() { c.Write(all) })
		mustReadUnit(t, c, all)
		wg.Wait()
		c.Close()
	})
}

func TestUnitsCutAtEveryByte(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		var mu sync.Mutex
		var got []byte
		units := make(chan int, 100)
		h := &hooks{unit: func(_ *Loop, _ Conn, u []byte, _ *mempool.Chunk) error {
			mu.Lock()
			got = append(got, u...)
			mu.Unlock()
			units <- len(u)
			return nil
		}}
		k := onLoop(h)
		f := serve(t, engine, func(int) Handler { return k }, nil)
		var stream []byte
		count := 0
		for i, n := range []int{4, 16, 17, 5, 20, 33, 64, 15, 100} {
			stream = append(stream, unitOf(n, byte(i))...)
			count++
		}
		c := f.dial()
		sent := 0
		for cut := range len(stream) {
			mu.Lock()
			got = got[:0]
			mu.Unlock()
			mustWrite(t, c, stream[:cut])
			f.meters[0].awaitRead(t, sent+cut) // the first part was read alone
			mustWrite(t, c, stream[cut:])
			sent += len(stream)
			for range count {
				wait(t, units, "a unit")
			}
			mu.Lock()
			if !bytes.Equal(got, stream) {
				t.Fatalf("cut at %d: other bytes came out", cut)
			}
			mu.Unlock()
		}
		k.settle(t, f.srv.Loops()[0])
		if s := f.srv.Stats(); s.InBorrowedBytes != 0 {
			t.Errorf("%d bytes borrowed with no unit pending", s.InBorrowedBytes)
		}
	})
}

// A sender of single bytes must be served, and cost little meanwhile.
func TestSlowWriter(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		done := make(chan []byte, 1)
		h := &hooks{unit: func(_ *Loop, _ Conn, u []byte, _ *mempool.Chunk) error {
			done <- bytes.Clone(u)
			return nil
		}}
		k := onLoop(h)
		f := serve(t, engine, func(int) Handler { return k }, nil)
		u := unitOf(300, 1)
		c := f.dial()
		for i := range u {
			mustWrite(t, c, u[i:i+1])
			f.meters[0].awaitRead(t, i+1)
			if i == 200 {
				k.settle(t, f.srv.Loops()[0])
				if b := f.srv.Stats().InBorrowedBytes; b > 512 {
					t.Errorf("%d bytes borrowed for 200 that arrived", b)
				}
			}
		}
		if !bytes.Equal(wait(t, done, "the unit"), u) {
			t.Fatal("another unit arrived")
		}
	})
}

// What is declared must not be taken: many peers announce 8 MiB and send little.
func TestDeclaredLengthCostsNothing(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		k := onLoop(&hooks{})
		f := serve(t, engine, func(int) Handler { return k }, nil)
		const peers, sent = 50, 40
		u := unitOf(8<<20, 1)
		var conns []net.Conn
		for range peers {
			c := f.dial()
			mustWrite(t, c, u[:sent])
			conns = append(conns, c)
		}
		f.meters[0].awaitRead(t, peers*sent)
		k.settle(t, f.srv.Loops()[0])
		if b := f.srv.Stats().InBorrowedBytes; b != peers*128 {
			t.Errorf("borrowed %d bytes a peer for %d that arrived", b/peers, sent)
		}
		for _, c := range conns {
			c.Close()
		}
	})
}

func TestGrownBytes(t *testing.T) {
	for _, c := range []struct{ have, need, want int }{
		{17, 0, 34}, {17, 20, 20}, {40, 8 << 20, 80}, {4096, 8 << 20, 16384}, {256 << 10, 1 << 20, 1 << 20},
		{256 << 10, 8 << 20, 1 << 20}, {50, 50, 50}, {60, 50, 60},
	} {
		if got := grownBytes(c.have, c.need); got != c.want {
			t.Errorf("grownBytes(%d, %d) = %d, want %d", c.have, c.need, got, c.want)
		}
	}
}

func TestEndWithinUnit(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		reasons := make(chan error, 1)
		h := &hooks{closed: func(_ *Loop, _ Conn, err error) { reasons <- err }}
		f := serve(t, engine, func(int) Handler { return h }, nil)
		for _, c := range []struct {
			send int
			want error
		}{{0, io.EOF}, {100, io.EOF}, {1, io.ErrUnexpectedEOF}, {3, io.ErrUnexpectedEOF}, {16, io.ErrUnexpectedEOF},
			{17, io.ErrUnexpectedEOF}, {99, io.ErrUnexpectedEOF}, {199, io.ErrUnexpectedEOF}} {
			k := f.dial()
			two := append(unitOf(100, 1), unitOf(100, 2)...)
			mustWrite(t, k, two[:c.send])
			k.Close()
			if got := wait(t, reasons, "Closed"); !errors.Is(got, c.want) || got == nil {
				t.Errorf("after %d bytes: %v, want %v", c.send, got, c.want)
			}
		}
	})
}

func TestHandlerErrorsEndTheConnectionAfterTheReply(t *testing.T) {
	errUnit := errors.New("refused")
	engines(t, func(t *testing.T, engine string) {
		reasons := make(chan error, 1)
		reply := unitOf(1000, 9)
		h := &hooks{
			unit: func(l *Loop, c Conn, u []byte, _ *mempool.Chunk) error {
				l.Send(c, reply)
				if len(u) == 5 {
					return errUnit
				}
				return nil
			},
			closed: func(_ *Loop, _ Conn, err error) { reasons <- err },
		}
		f := serve(t, engine, func(int) Handler { return h }, nil)
		for name, c := range map[string]struct {
			send    []byte
			replies int
			want    error
		}{
			// Much is sent behind the refused unit: the reply must arrive even
			// so, which an abrupt close with unread input would endanger.
			"unit":  {append(unitOf(5, 1), make([]byte, 700_000)...), 1, errUnit},
			"size":  {append(unitOf(8, 1), 3, 0, 0, 0), 1, errTestSize},
			"large": {append(unitOf(8, 1), 0, 0, 0, 255), 1, errTestSize},
		} {
			k := f.dial()
			mustWrite(t, k, c.send)
			all, err := io.ReadAll(k)
			if err != nil {
				t.Errorf("%s: client: %v", name, err)
			}
			if !bytes.Equal(all, bytes.Repeat(reply, c.replies)) {
				t.Errorf("%s: client got %d bytes, want %d replies", name, len(all), c.replies)
			}
			if got := wait(t, reasons, "Closed"); !errors.Is(got, c.want) {
				t.Errorf("%s: reason %v, want %v", name, got, c.want)
			}
			k.Close()
		}
	})
}

func TestUnitLimits(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		reasons := make(chan error, 1)
		var n atomic.Int64
		h := &hooks{
			size:   func(*Loop, Conn, []byte) (int, error) { return int(n.Load()), nil },
			closed: func(_ *Loop, _ Conn, err error) { reasons <- err },
		}
		f := serve(t, engine, func(int) Handler { return h }, func(o *Options) { o.UnitMaxBytes = 1 << 20 })
		for _, c := range []struct{ size, send int }{{1<<20 + 1, 4}, {-1, 4}, {0, headMax}} {
			n.Store(int64(c.size))
			k := f.dial()
			mustWrite(t, k, make([]byte, c.send))
			err := wait(t, reasons, "Closed")
			var ue *UnitError
			if !errors.As(err, &ue) || !errors.Is(err, ErrUnit) {
				t.Errorf("size %d: reason %v", c.size, err)
			}
			k.Close()
		}
	})
}

func TestPauseBetweenUnitsOfOneRead(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		got := make(chan []byte, 1000)
		var conn Conn
		h := &hooks{unit: func(l *Loop, c Conn, u []byte, _ *mempool.Chunk) error {
			conn = c
			l.Pause(c)
			got <- bytes.Clone(u)
			return nil
		}}
		k := onLoop(h)
		f := serve(t, engine, func(int) Handler { return k }, nil)
		var all []byte
		var want [][]byte
		for i, n := range []int{4, 10, 200, 5, 4, 70_000, 16, 17, 300_000, 4, 4, 4, 900} {
			u := unitOf(n, byte(i))
			want = append(want, u)
			all = append(all, u...)
		}
		c := f.dial()
		var wg sync.WaitGroup
		wg.Go(func() { c.Write(all) })
		for i, u := range want {
			if g := wait(t, got, "a unit"); !bytes.Equal(g, u) {
				t.Fatalf("unit %d: other bytes", i)
			}
			// Nothing more comes however often the loop turns.
			for range 3 {
				k.do(t, f.srv.Loops()[0], func(*Loop) {})
			}
			if len(got) != 0 {
				t.Fatalf("unit %d: another came during the pause", i)
			}
			k.do(t, f.srv.Loops()[0], func(l *Loop) { l.Resume(conn) })
		}
		wg.Wait()
	})
}

// While paused the peer's bytes stay in the kernel: its writes stop.
func TestPauseStopsTheSender(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		conns := make(chan Conn, 1)
		total := 0
		done := make(chan struct{})
		const units, size = 400, 64 << 10 // far more than socket buffers hold
		h := &hooks{
			opened: func(l *Loop, c Conn) { l.Pause(c); conns <- c },
			unit: func(_ *Loop, _ Conn, u []byte, _ *mempool.Chunk) error {
				if total += len(u); total == units*size {
					close(done)
				}
				return nil
			},
		}
		k := onLoop(h)
		f := serve(t, engine, func(int) Handler { return k }, func(o *Options) { o.RecvBufferBytes = 64 << 10 })
		c := f.dial()
		c.SetWriteBuffer(64 << 10)
		conn := wait(t, conns, "Opened")
		u := unitOf(size, 1)
		written := make(chan int, units)
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range units {
				if _, err := c.Write(u); err != nil {
					t.Errorf("unit %d: %v", i, err)
					return
				}
				written <- i
			}
		})
		l := f.srv.Loops()[0]
		k.do(t, l, func(*Loop) {})
		if f.srv.Stats().BytesIn != 0 {
			t.Error("a paused connection was read")
		}
		k.do(t, l, func(l *Loop) { l.Resume(conn) })
		wait(t, done, "all units")
		wg.Wait()
	})
}

// With a budget for two, fifty peers send their units in halves. All must get
// through, the memory within bounds, whatever the order.
func TestInBudgetLetsEveryoneThroughInTheEnd(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		const peers, size, budget, read = 50, 200_000, 400_000, 64 << 10
		done := make(chan struct{}, peers)
		most := 0
		h := &hooks{
			unit:    func(*Loop, Conn, []byte, *mempool.Chunk) error { done <- struct{}{}; return nil },
			turnEnd: func(l *Loop) { most = max(most, l.inBytes) },
		}
		f := serve(t, engine, func(int) Handler { return h }, func(o *Options) {
			o.InBudgetBytes, o.ReadBytes, o.ReadMaxBytes, o.PressedTimeout = budget, read, read, -1
		})
		u := unitOf(size, 1)
		var conns []net.Conn
		for range peers {
			c := f.dial()
			mustWrite(t, c, u[:size/2])
			conns = append(conns, c)
		}
		var wg sync.WaitGroup
		for _, c := range conns {
			wg.Go(func() { c.Write(u[size/2:]) })
		}
		for range peers {
			wait(t, done, "a unit")
		}
		wg.Wait()
		for _, c := range conns {
			c.Close()
		}
		f.stop()
		if s := f.srv.Stats(); s.Starved == 0 {
			t.Error("the budget was never felt: the test tests nothing")
		}
		// Over the budget go the reserve, the last that reached it, and one unit.
		if limit := budget + budget/2 + 2*mempool.ClassBytes(size); most > limit {
			t.Errorf("borrowed %d bytes, bound %d", most, limit)
		}
	})
}

// Peers that declare large units and send a part of them use up the budget and
// its reserve. They are ended after PressedTimeout, the others wait no longer
// than that; without pressure an incomplete unit has all its time.
func TestIncompleteUnitsAreShedUnderPressure(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		const holders, budget = 40, 1 << 20
		done := make(chan struct{}, 1)
		reasons := make(chan error, holders+2)
		h := &hooks{
			unit:   func(*Loop, Conn, []byte, *mempool.Chunk) error { done <- struct{}{}; return nil },
			closed: func(_ *Loop, _ Conn, err error) { reasons <- err },
		}
		f := serve(t, engine, func(int) Handler { return h }, func(o *Options) {
			o.InBudgetBytes, o.PressedTimeout, o.PartialTimeout = budget, 300*time.Millisecond, -1
		})
		large := unitOf(4<<20, 1)
		patient := f.dial()
		mustWrite(t, patient, large[:1000])
		for range holders {
			mustWrite(t, f.dial(), large[:64<<10])
		}
		small := unitOf(100_000, 2)
		good := f.dial()
		for range 20 {
			mustWrite(t, good, small[:70_000])
			mustWrite(t, good, small[70_000:])
			wait(t, done, "a small unit")
		}
		if f.srv.Stats().Starved == 0 {
			t.Error("the budget was never felt: the test tests nothing")
		}
		if err := wait(t, reasons, "an end"); !errors.Is(err, ErrPartial) {
			t.Errorf("ended with %v", err)
		}
		// What is left is within the budget, and is not hurried any more.
		mustWrite(t, good, small)
		wait(t, done, "a small unit")
	})
}

// A handler that keeps chunks exhausts the pool. Reading stops without loss and
// goes on when memory comes back.
func TestPoolExhaustionOnlyDelays(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		type kept struct {
			ch *mempool.Chunk
			u  []byte
			i  int
		}
		const units, size = 200, 30_000
		var hoard []kept // owned by the loop
		seen := 0
		starved := make(chan struct{}, 1)
		done := make(chan struct{})
		free := func() {
			for _, k := range hoard {
				if !bytes.Equal(k.u, unitOf(size, byte(k.i))) {
					t.Errorf("retained unit %d changed", k.i)
				}
				k.ch.Release()
			}
			hoard = hoard[:0]
		}
		h := &hooks{unit: func(_ *Loop, _ Conn, u []byte, ch *mempool.Chunk) error {
			ch.Retain()
			hoard = append(hoard, kept{ch, u, seen})
			if seen++; seen == units {
				close(done)
			}
			return nil
		}}
		h.turnEnd = func(l *Loop) {
			if len(l.starved) > 0 {
				select {
				case starved <- struct{}{}:
				default:
				}
			}
		}
		h.closed = func(*Loop, Conn, error) { free() }
		k := onLoop(h)
		f := serve(t, engine, func(int) Handler { return k }, func(o *Options) {
			o.Pool = mempool.NewPool(mempool.Options{MaxBytes: 1 << 20, KeepBytes: -1, Poison: true})
			o.ReadBytes, o.ReadMaxBytes = 128<<10, 128<<10
		})
		c := f.dial()
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range units {
				c.Write(unitOf(size, byte(i)))
			}
		})
		for {
			select {
			case <-starved:
				k.do(t, f.srv.Loops()[0], func(*Loop) { free() })
				continue
			case <-done:
			case <-time.After(patience):
				t.Fatal("stuck")
			}
			break
		}
		wg.Wait()
		c.Close()
		f.stop()
		if f.srv.Stats().Starved == 0 {
			t.Error("the pool was never exhausted: the test tests nothing")
		}
	})
}

// Retained units keep their bytes through all later traffic; weak references
// either show the same bytes or say that they are gone.
func TestRetainedAndWeakUnitsKeepTheirBytes(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		type ref struct {
			ch   *mempool.Chunk
			gen  uint32
			u    []byte
			size int
			i    int
		}
		var weak, strong []ref
		const units = 3000
		seen, hits := 0, 0
		done := make(chan struct{})
		check := func(r ref) {
			if !bytes.Equal(r.u, unitOf(r.size, byte(r.i))) {
				t.Errorf("unit %d changed", r.i)
			}
		}
		h := &hooks{unit: func(_ *Loop, _ Conn, u []byte, ch *mempool.Chunk) error {
			r := ref{ch, 0, u, len(u), seen}
			switch seen % 3 {
			case 0:
				r.gen = ch.Gen()
				weak = append(weak, r)
			case 1:
				ch.Retain()
				strong = append(strong, r)
			}
			if len(strong) > 20 {
				check(strong[0])
				strong[0].ch.Release()
				strong = strong[1:]
			}
			if len(weak) > 4 {
				if w := weak[0]; w.ch.TryRetain(w.gen) {
					hits++
					check(w)
					w.ch.Release()
				}
				weak = weak[1:]
			}
			if seen++; seen == units {
				close(done)
			}
			return nil
		}}
		h.closed = func(*Loop, Conn, error) {
			for _, r := range strong {
				r.ch.Release()
			}
		}
		f := serve(t, engine, func(int) Handler { return h }, func(o *Options) {
			o.ReadBytes, o.ReadMaxBytes = 64<<10, 64<<10
			o.Pool = mempool.NewPool(mempool.Options{KeepBytes: 256 << 10, Poison: true})
		})
		c := f.dial()
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range units {
				c.Write(unitOf(4+(i*7919)%20_000, byte(i)))
			}
		})
		wait(t, done, "all units")
		wg.Wait()
		c.Close()
		f.stop()
		if hits == 0 {
			t.Error("no weak reference was ever found")
		}
		t.Logf("%d weak references found, pool %v", hits, f.pool.Stats())
	})
}

func TestReceiveChunkIsReusedAndGivenUp(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		chunks := make(chan *mempool.Chunk, 10)
		h := &hooks{unit: func(_ *Loop, _ Conn, u []byte, ch *mempool.Chunk) error {
			if &u[0] != &ch.B[0] {
				t.Error("the chunk was not used from its start")
			}
			chunks <- ch
			return nil
		}}
		idle := make(chan struct{})
		h.tick = func(l *Loop, _ int64) {
			if l.slab.Live() > 0 && l.recv == nil && len(idle) == 0 {
				select {
				case idle <- struct{}{}:
				default:
				}
			}
		}
		f := serve(t, engine, func(int) Handler { return h }, nil)
		c := f.dial()
		var first *mempool.Chunk
		for i := range 5 {
			mustWrite(t, c, unitOf(100, byte(i)))
			ch := wait(t, chunks, "a unit")
			if first == nil {
				first = ch
			} else if ch != first {
				t.Fatal("another chunk although nobody kept the first")
			}
		}
		wait(t, idle, "the idle loop to give its chunk up")
		if s := f.pool.Stats(); s.LiveBytes != 0 {
			t.Errorf("an idle server holds %d bytes", s.LiveBytes)
		}
	})
}

func TestBlockingEchoUnderManyConnections(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		f := serve(t, engine, func(int) Handler { return echo() }, func(o *Options) { o.Loops = 3 })
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				c := f.dial()
				defer c.Close()
				for j := range 30 {
					u := unitOf(4+(i*j*977)%50_000, byte(i+j))
					if _, err := c.Write(u); err != nil {
						t.Errorf("write: %v", err)
						return
					}
					got := make([]byte, len(u))
					if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, u) {
						t.Errorf("conn %d unit %d: %v", i, j, err)
						return
					}
				}
			})
		}
		wg.Wait()
		f.stop()
		if s := f.srv.Stats(); s.Units != 40*30 {
			t.Errorf("%d units, want %d", s.Units, 40*30)
		}
	})
}
