// Package drivertest holds a driver to the contract of package driver. Every
// driver's own test calls Run.
package drivertest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
)

// Options say what to test with.
type Options struct {
	// Ack is the level to produce at; the topics' visibility is the same, or
	// accepted where it is none.
	Ack message.AckLevel
	// Lossy: the system may lose messages without a failure (at most once), so
	// the suite paces itself and does not count.
	Lossy bool
	// NoBackPressure is why the system's client never waits; empty: it does.
	NoBackPressure string
	// ClientAllocations is how many allocations the system's client makes for
	// each message, at most; 0: only such as batches share.
	ClientAllocations float64
}

// wait bounds everything in the suite.
const wait = 30 * time.Second

// Run runs the suite. open is called for each test; the suite closes what it
// returns.
func Run(t *testing.T, open func(t *testing.T) driver.Driver, o Options) {
	s := &suite{open: open, o: o}
	t.Run("Describe", s.describe)
	t.Run("Topics", s.topics)
	t.Run("ModesAreServedOrRefused", s.modes)
	t.Run("OrderInEachPartition", s.order)
	t.Run("KeysAndTimestampsArrive", s.keys)
	t.Run("AnswersComeExactlyOnce", s.answers)
	t.Run("OldMessagesAreNotDelivered", s.fresh)
	t.Run("BackPressureIsAWait", s.backPressure)
	t.Run("SendEndsWithItsContext", s.sendContext)
	t.Run("FlushWaitsForAnswers", s.flush)
	t.Run("CloseAnswersEverything", s.closeProducer)
	t.Run("ClosedConsumer", s.closeConsumer)
	t.Run("CloseOfTheConn", s.closeConn)
	t.Run("CaughtUp", s.caughtUp)
	t.Run("SlotsCostNothing", s.allocations)
}

type suite struct {
	open func(t *testing.T) driver.Driver
	o    Options
	n    atomic.Int64
}

// world is a driver and a topic.
type world struct {
	*testing.T
	s   *suite
	d   driver.Driver
	t   driver.Topic
	ctx context.Context
}

func (s *suite) world(t *testing.T, partitions int) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	t.Cleanup(cancel)
	w := &world{T: t, s: s, ctx: ctx, d: s.open(t)}
	t.Cleanup(func() {
		if err := w.d.Close(); err != nil {
			t.Errorf("close the driver: %v", err)
		}
	})
	name := fmt.Sprintf("drivertest-%d-%d", time.Now().UnixNano(), s.n.Add(1))
	var err error
	w.t, err = w.d.Prepare(ctx, driver.Topic{Name: name, Partitions: partitions, Visibility: max(s.o.Ack, message.AckAccepted)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		if err := w.d.Drop(ctx, name); err != nil {
			t.Errorf("drop: %v", err)
		}
	})
	return w
}

func (w *world) connect(name string) driver.Conn {
	w.Helper()
	c, err := w.d.Connect(w.ctx, name)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { c.Close() })
	return c
}

func (w *world) options() driver.ProducerOptions {
	return driver.ProducerOptions{Topic: w.t.Name, Ack: w.s.o.Ack, Linger: -1}
}

func (w *world) producer(change func(*driver.ProducerOptions)) driver.Producer {
	w.Helper()
	o := w.options()
	if change != nil {
		change(&o)
	}
	p, err := w.connect("producer").Producer(w.ctx, o)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { p.Close(w.ctx) })
	return p
}

func (w *world) consumer(partitions ...uint32) driver.Consumer {
	w.Helper()
	k, err := w.connect("consumer").Consumer(w.ctx, driver.ConsumerOptions{Topic: w.t.Name, Partitions: partitions, Mode: driver.Stream})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { k.Close() })
	return k
}

// value is 16 bytes that name a message, and filling.
func value(producer, partition uint32, seq uint64, size int) []byte {
	b := binary.BigEndian.AppendUint32(nil, producer)
	b = binary.BigEndian.AppendUint32(b, partition)
	b = binary.BigEndian.AppendUint64(b, seq)
	return append(b, bytes.Repeat([]byte{byte(seq)}, max(0, size-16))...)
}

func parse(b []byte) (producer, partition uint32, seq uint64) {
	return binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint64(b[8:])
}

// send sends n messages to each partition and waits for the answers.
func (w *world) send(p driver.Producer, producer uint32, partitions, n, size int) {
	w.Helper()
	var left sync.WaitGroup
	for i := range n {
		for q := range uint32(partitions) {
			left.Add(1)
			s := p.Slot(func(err error) {
				if err != nil {
					w.Errorf("message %d of partition %d: %v", i, q, err)
				}
				left.Done()
			})
			m := message.Message{Value: value(producer, q, uint64(i), size), Timestamp: 1}
			if err := s.Send(w.ctx, q, &m); err != nil {
				w.Fatal(err)
			}
		}
		if w.s.o.Lossy && i%64 == 63 {
			time.Sleep(time.Millisecond) // no credit anywhere: the suite must not be what overruns it
		}
	}
	if err := p.Flush(w.ctx); err != nil {
		w.Fatal(err)
	}
	left.Wait()
}

// receive polls until n messages came and gives each to f.
func (w *world) receive(k driver.Consumer, n int, f func(partition uint32, m *message.Message)) {
	w.Helper()
	for got := 0; got < n; {
		b, err := k.Poll(w.ctx)
		if err != nil {
			w.Fatalf("after %d of %d messages: %v", got, n, err)
		}
		for m, err := range b.Messages() {
			if err != nil {
				w.Fatal(err)
			}
			f(b.Partition(), m)
			got++
		}
		b.Release()
	}
}

func (s *suite) describe(t *testing.T) {
	w := s.world(t, 1)
	x, err := w.d.Describe(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if x.System == "" || x.Version == "" || w.d.Name() == "" {
		t.Errorf("driver %q describes system %q, version %q", w.d.Name(), x.System, x.Version)
	}
	gives, ok := x.Gives(s.o.Ack)
	if !ok {
		t.Errorf("ack level %v is not among %+v", s.o.Ack, x.Levels)
	}
	if gives == driver.Nothing && !s.o.Lossy && s.o.Ack != message.AckNone && x.System != "loopback" {
		t.Errorf("ack level %v gives nothing", s.o.Ack)
	}
	for i, l := range x.Levels {
		if l.Name != l.Ack.String() || l.How == "" || i > 0 && l.Ack <= x.Levels[i-1].Ack {
			t.Errorf("level %+v after %+v", l, x.Levels[:i])
		}
	}
}

func (s *suite) topics(t *testing.T) {
	w := s.world(t, 3)
	if w.t.Partitions != 3 {
		t.Errorf("prepared with %d partitions, want 3", w.t.Partitions)
	}
	got, err := w.d.Lookup(w.ctx, w.t.Name)
	if u := driver.AsUnsupported(err); u != nil {
		t.Logf("lookup: %v", u)
	} else if err != nil || got.Partitions != 3 || got.Name != w.t.Name {
		t.Errorf("lookup: %+v, %v", got, err)
	}
	if _, err := w.d.Lookup(w.ctx, w.t.Name+"-not"); err == nil {
		t.Error("a topic that is not there was found")
	}
	if err := w.d.Drop(w.ctx, w.t.Name+"-not"); err != nil {
		t.Errorf("drop of a topic that is not there: %v", err)
	}
}

func (s *suite) modes(t *testing.T) {
	w := s.world(t, 1)
	c := w.connect("modes")
	for _, m := range driver.Modes {
		err := w.d.Check(driver.Needs{Mode: m, Ack: s.o.Ack, Partitions: 1})
		if err == nil {
			continue
		}
		u := driver.AsUnsupported(err)
		if u == nil || u.Driver != w.d.Name() || u.What == "" || u.Why == "" {
			t.Errorf("mode %s: %v, want *driver.Unsupported with its reason", m, err)
		}
		if _, err := c.Consumer(w.ctx, driver.ConsumerOptions{Topic: w.t.Name, Partitions: []uint32{0}, Mode: m}); driver.AsUnsupported(err) == nil {
			t.Errorf("mode %s was refused by Check and not by Consumer: %v", m, err)
		}
		if m == driver.Stream {
			t.Error("streams are what every driver has")
		}
	}
}

func (s *suite) order(t *testing.T) {
	const partitions, n = 3, 2000
	w := s.world(t, partitions)
	// Two consumers share the partitions, two producers send to all of them.
	ks := []driver.Consumer{w.consumer(0, 2), w.consumer(1)}
	ps := []driver.Producer{w.producer(nil), w.producer(nil)}
	var sending sync.WaitGroup
	for i, p := range ps {
		sending.Go(func() { w.send(p, uint32(i), partitions, n, 100) })
	}
	var next [2][partitions]uint64
	last := [partitions]message.Offset{-1, -1, -1}
	var receiving sync.WaitGroup
	for i, k := range ks {
		receiving.Go(func() {
			total := []int{2, 1}[i] * n * len(ps)
			w.receive(k, total, func(at uint32, m *message.Message) {
				producer, partition, seq := parse(m.Value)
				if partition != at || int(producer) > 1 {
					t.Fatalf("a message of producer %d for partition %d came from %d", producer, partition, at)
				}
				if want := next[producer][at]; seq != want {
					t.Fatalf("producer %d, partition %d: message %d, want %d", producer, at, seq, want)
				}
				next[producer][at]++
				if !bytes.Equal(m.Value, value(producer, partition, seq, 100)) {
					t.Fatalf("message %d differs", seq)
				}
				if m.Offset != message.NoOffset {
					if m.Offset <= last[at] {
						t.Fatalf("partition %d: offset %d after %d", at, m.Offset, last[at])
					}
					last[at] = m.Offset
				}
			})
		})
	}
	sending.Wait()
	receiving.Wait()
	for i, p := range ps {
		if st := p.Stats(); st.Messages != partitions*n || st.Batches == 0 || st.Batches > st.Messages {
			t.Errorf("producer %d: stats %+v, want %d messages", i, st, partitions*n)
		}
	}
}

func (s *suite) keys(t *testing.T) {
	w := s.world(t, 1)
	k, p := w.consumer(0), w.producer(nil)
	if err := w.d.Check(driver.Needs{Mode: driver.Stream, Ack: s.o.Ack, Partitions: 1, Keys: true}); err != nil {
		t.Skipf("no keys: %v", driver.AsUnsupported(err))
	}
	for _, key := range [][]byte{[]byte("key"), nil} {
		if err := p.Slot(func(error) {}).Send(w.ctx, 0, &message.Message{Key: key, Value: []byte("v"), Timestamp: 1_700_000_000_000_000}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	w.receive(k, 2, func(_ uint32, m *message.Message) { got = append(got, string(m.Key)+"="+string(m.Value)) })
	if len(got) != 2 || got[0] != "key=v" || got[1] != "=v" {
		t.Errorf("received %q", got)
	}
}

func (s *suite) answers(t *testing.T) {
	w := s.world(t, 2)
	w.consumer(0, 1)
	p := w.producer(nil)
	const slots, rounds = 50, 40
	// Each slot is used again as soon as it is free.
	var count [slots]atomic.Int64
	free := make(chan int, slots)
	var all [slots]driver.Slot
	for i := range all {
		all[i] = p.Slot(func(err error) {
			if err != nil {
				t.Errorf("slot %d: %v", i, err)
			}
			count[i].Add(1)
			free <- i
		})
		free <- i
	}
	var used [slots]int64
	for n := range slots * rounds {
		select {
		case i := <-free:
			used[i]++
			if err := all[i].Send(w.ctx, uint32(n%2), &message.Message{Value: value(0, uint32(n%2), uint64(n), 64), Timestamp: 1}); err != nil {
				t.Fatal(err)
			}
		case <-w.ctx.Done():
			t.Fatal("answers are missing")
		}
	}
	if err := p.Flush(w.ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(w.ctx); err != nil {
		t.Fatal(err)
	}
	for i := range count {
		if got := count[i].Load(); got != used[i] {
			t.Errorf("slot %d: %d answers for %d messages", i, got, used[i])
		}
	}
}

func (s *suite) fresh(t *testing.T) {
	w := s.world(t, 1)
	p := w.producer(nil)
	w.send(p, 0, 1, 10, 64)
	k := w.consumer(0)
	w.send(p, 1, 1, 1, 64)
	w.receive(k, 1, func(_ uint32, m *message.Message) {
		if producer, _, _ := parse(m.Value); producer != 1 {
			t.Error("a message from before the subscription was delivered")
		}
	})
}

// A producer with a small buffer and a slow target waits in Send. How long a
// consumer that does not read is held against it differs, so the target is
// overrun instead: by a producer that sends without a pause.
func (s *suite) backPressure(t *testing.T) {
	if s.o.NoBackPressure != "" {
		t.Skip(s.o.NoBackPressure)
	}
	w := s.world(t, 1)
	k := w.consumer(0)
	const buffer, size, n = 64 << 10, 1 << 10, 5000
	p := w.producer(func(o *driver.ProducerOptions) { o.BufferBytes, o.BatchBytes = buffer, 16<<10 })
	var outstanding, most, answered atomic.Int64
	got := make(chan struct{})
	go func() {
		defer close(got)
		w.receive(k, n, func(uint32, *message.Message) {})
	}()
	for i := range n {
		sl := p.Slot(func(err error) {
			if err != nil {
				t.Error(err)
			}
			outstanding.Add(-1)
			answered.Add(1)
		})
		if err := sl.Send(w.ctx, 0, &message.Message{Value: value(0, 0, uint64(i), size), Timestamp: 1}); err != nil {
			t.Fatal(err)
		}
		if now := outstanding.Add(1); now > most.Load() {
			most.Store(now)
		}
	}
	if err := p.Flush(w.ctx); err != nil {
		t.Fatal(err)
	}
	<-got
	if answered.Load() != n {
		t.Errorf("%d of %d were answered", answered.Load(), n)
	}
	// What is answered leaves the buffer a moment before or after its answer.
	if m := most.Load(); m > 3*buffer/size {
		t.Errorf("%d messages of %d B were outstanding with a buffer of %d B", m, size, buffer)
	}
	if p.Congested() {
		t.Error("congested with nothing outstanding")
	}
}

func (s *suite) sendContext(t *testing.T) {
	w := s.world(t, 1)
	p := w.producer(nil)
	ctx, cancel := context.WithCancel(w.ctx)
	cancel()
	answered := make(chan error, 1)
	err := p.Slot(func(err error) { answered <- err }).Send(ctx, 0, &message.Message{Value: value(0, 0, 0, 64), Timestamp: 1})
	if err != nil {
		// Where there is room, the message may be taken all the same.
		if !errors.Is(err, context.Canceled) {
			t.Errorf("send with a context that has ended: %v", err)
		}
		if err := p.Flush(w.ctx); err != nil {
			t.Error(err)
		}
		select {
		case err := <-answered:
			t.Errorf("an answer (%v) after an error", err)
		default:
		}
		return
	}
	if err := p.Flush(w.ctx); err != nil {
		t.Error(err)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func (s *suite) flush(t *testing.T) {
	w := s.world(t, 1)
	w.consumer(0)
	p := w.producer(func(o *driver.ProducerOptions) { o.Linger = 5 * time.Second })
	if err := p.Flush(w.ctx); err != nil {
		t.Errorf("flush of nothing: %v", err)
	}
	var answers atomic.Int64
	began := time.Now()
	for i := range 3 {
		sl := p.Slot(func(error) { answers.Add(1) })
		if err := sl.Send(w.ctx, 0, &message.Message{Value: value(0, 0, uint64(i), 64), Timestamp: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(w.ctx); err != nil {
		t.Fatal(err)
	}
	if n := answers.Load(); n != 3 {
		t.Errorf("%d answers when Flush returned, want 3", n)
	}
	if d := time.Since(began); d > 4*time.Second {
		t.Errorf("flushing took %v: it waited for the linger", d)
	}
}

func (s *suite) closeProducer(t *testing.T) {
	w := s.world(t, 1)
	p := w.producer(nil)
	const n = 500
	var answers [n]atomic.Int64
	for i := range n {
		sl := p.Slot(func(error) { answers[i].Add(1) })
		if err := sl.Send(w.ctx, 0, &message.Message{Value: value(0, 0, uint64(i), 256), Timestamp: 1}); err != nil {
			t.Fatal(err)
		}
	}
	// A context that has ended: close does not wait for the target.
	ctx, cancel := context.WithCancel(w.ctx)
	cancel()
	p.Close(ctx)
	for i := range n {
		if got := answers[i].Load(); got != 1 {
			t.Fatalf("message %d has %d answers after Close", i, got)
		}
	}
	called := false
	if err := p.Slot(func(error) { called = true }).Send(w.ctx, 0, &message.Message{Value: value(0, 0, 0, 64), Timestamp: 1}); err == nil {
		t.Error("send after Close succeeded")
	}
	if called {
		t.Error("an answer after an error")
	}
	if err := p.Close(w.ctx); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func (s *suite) closeConsumer(t *testing.T) {
	w := s.world(t, 1)
	k := w.consumer(0)
	ended := make(chan error, 1)
	go func() {
		_, err := k.Poll(w.ctx)
		ended <- err
	}()
	if err := k.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, driver.ErrClosed) {
			t.Errorf("a Poll that waits got %v, want ErrClosed", err)
		}
	case <-w.ctx.Done():
		t.Fatal("Poll does not end")
	}
	if _, err := k.Poll(w.ctx); !errors.Is(err, driver.ErrClosed) {
		t.Errorf("Poll after Close: %v, want ErrClosed", err)
	}
	if err := k.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	k = w.consumer(0)
	ctx, cancel := context.WithTimeout(w.ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := k.Poll(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Poll with a context that ended: %v", err)
	}
}

func (s *suite) closeConn(t *testing.T) {
	w := s.world(t, 1)
	c := w.connect("both")
	k, err := c.Consumer(w.ctx, driver.ConsumerOptions{Topic: w.t.Name, Partitions: []uint32{0}, Mode: driver.Stream})
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Producer(w.ctx, w.options())
	if err != nil {
		t.Fatal(err)
	}
	var answers atomic.Int64
	for i := range 100 {
		sl := p.Slot(func(error) { answers.Add(1) })
		if err := sl.Send(w.ctx, 0, &message.Message{Value: value(0, 0, uint64(i), 64), Timestamp: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if n := answers.Load(); n != 100 {
		t.Errorf("%d of 100 messages were answered when Close returned", n)
	}
	for {
		b, err := k.Poll(w.ctx)
		if err != nil {
			if !errors.Is(err, driver.ErrClosed) {
				t.Errorf("Poll after Close of the Conn: %v, want ErrClosed", err)
			}
			break
		}
		b.Release()
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func (s *suite) caughtUp(t *testing.T) {
	w := s.world(t, 2)
	k, p := w.consumer(0, 1), w.producer(nil)
	if ok, err := k.CaughtUp(w.ctx); err != nil || !ok {
		t.Errorf("caught up with nothing: %v, %v", ok, err)
	}
	w.send(p, 0, 2, 100, 64)
	got := 0
	for {
		if ok, err := k.CaughtUp(w.ctx); err != nil {
			w.Fatal(err)
		} else if ok {
			if got != 200 && !s.o.Lossy {
				t.Errorf("caught up after %d of 200 messages", got)
			}
			return
		}
		ctx, cancel := context.WithTimeout(w.ctx, 20*time.Millisecond)
		b, err := k.Poll(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			continue
		}
		if err != nil {
			w.Fatal(err)
		}
		for range b.Messages() {
			got++
		}
		if ok, err := k.CaughtUp(w.ctx); err != nil || ok && got == 200 {
			t.Errorf("caught up with a batch in hand: %v, %v", ok, err)
		}
		b.Release()
	}
}

// A slot in use costs the driver no allocation: what is left is the client's,
// amortised over batches.
func (s *suite) allocations(t *testing.T) {
	w := s.world(t, 1)
	p := w.producer(nil)
	const n = 4000
	free := make(chan driver.Slot, 256)
	for range cap(free) {
		var sl driver.Slot
		sl = p.Slot(func(error) { free <- sl })
		free <- sl
	}
	m := &message.Message{Value: value(0, 0, 0, 256), Timestamp: 1}
	round := func() {
		for range n {
			sl := <-free
			if err := sl.Send(w.ctx, 0, m); err != nil {
				t.Error(err)
				return
			}
		}
	}
	round() // buffers grow
	if got := testing.AllocsPerRun(1, round) / n; got > 0.5+s.o.ClientAllocations && !raceEnabled {
		t.Errorf("%.2f allocations a message", got)
	}
	if err := p.Flush(w.ctx); err != nil {
		t.Fatal(err)
	}
}
