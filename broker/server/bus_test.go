package server

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portask/portask/broker/bus"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/wire"
)

// hanging is an engine whose syncs and reads wait while their gate is shut, as on
// a disk that hangs.
type hanging struct {
	storage.Engine
	syncs, reads *gate
}

// gate lets everybody pass, or holds them until it opens.
type gate struct {
	mu   sync.Mutex
	open chan struct{}
	held chan struct{} // a value when somebody waits
}

func (g *gate) shut() (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := make(chan struct{})
	g.open, g.held = c, make(chan struct{}, 1)
	return sync.OnceFunc(func() { close(c) })
}

func (g *gate) pass() {
	g.mu.Lock()
	c, held := g.open, g.held
	g.mu.Unlock()
	if c != nil {
		select {
		case held <- struct{}{}:
		default:
		}
		<-c
	}
}

func (e *hanging) Levels() storage.Levels {
	return storage.LevelsOf(message.AckNone, message.AckAccepted, message.AckDurable)
}

func (e *hanging) OpenLog(id storage.PartitionID, o storage.LogOptions) (storage.Log, error) {
	l, err := e.Engine.OpenLog(id, o)
	return &hangingLog{Log: l, e: e}, err
}

type hangingLog struct {
	storage.Log
	e *hanging
}

func (l *hangingLog) Sync() (message.Offset, error) {
	end := l.End()
	l.e.syncs.pass()
	return end, nil
}

func (l *hangingLog) Read(from, below message.Offset, maxBytes int, dst []storage.Run) ([]storage.Run, error) {
	l.e.reads.pass()
	return l.Log.Read(from, below, maxBytes, dst)
}

// hangingRig is a rig on a hanging engine with topic "t" of accepted visibility,
// batches in its log that are in no memory, and a connection.
func hangingRig(t *testing.T, o Options) (*rig, *hanging, evloop.Conn, []string) {
	e := &hanging{Engine: openMem(t, 64<<20), syncs: &gate{}, reads: &gate{}}
	o.Engine = e
	r := newRig(t, o)
	r.topic("t", 1, message.AckAccepted)
	c := r.open()
	h, _ := r.producer(c, "t", message.AckAccepted, false)
	var want []string
	for i := range 20 {
		r.produce(c, h, 0, batchOf(t, message.Producer{}, fmt.Sprint("m", i), 1))
		var ack wire.ProduceOK
		r.answer(c, wire.OpProduce.Response(), &ack)
		want = append(want, fmt.Sprintf("m%d-0", i))
	}
	for range 64 {
		r.pool.Retire(r.pool.Get(1 << 20)) // until the tail has let go of them
	}
	return r, e, c, want
}

// Every worker of the committer hangs in a sync, and one reads history all the
// same, and is answered.
func TestAHangingSyncStopsNoReading(t *testing.T) {
	r, e, c, want := hangingRig(t, Options{Committer: partition.CommitterOptions{Workers: 1}})
	open := e.syncs.shut()
	t.Cleanup(open)
	h, _ := r.producer(c, "t", message.AckDurable, false)
	r.produce(c, h, 0, batchOf(t, message.Producer{}, "held", 1))
	r.turn() // which appends it
	<-e.syncs.held
	k := r.open()
	r.subscribe(k, &wire.Subscribe{Topic: "t", Credit: 1 << 30, MaxDeliverBytes: 300})
	var got []string
	for len(got) < len(want) {
		got = append(got, r.deliver(k, wire.OpDeliver).values...)
	}
	if !slices.Equal(got[:len(want)], want) || r.l.stats.historyReads == 0 {
		t.Fatalf("delivered %v in %d reads", got, r.l.stats.historyReads)
	}
	if s := r.s.Workers()[0]; s.Name != "commit" || s.Busy != 1 {
		t.Fatalf("the sync does not hang: %+v", s)
	}
	r.request(k, 0, wire.OpMetadata, &wire.MetadataRequest{})
	var m wire.Metadata
	r.answer(k, wire.OpMetadata.Response(), &m)
	open()
	var ack wire.ProduceOK
	if r.answer(c, wire.OpProduce.Response(), &ack); ack.BaseOffset != 20 {
		t.Fatalf("acknowledged at %d", ack.BaseOffset)
	}
}

// Requests overtake reads of history, however many of these hang.
func TestHangingReadsStopNoRequest(t *testing.T) {
	r, e, _, want := hangingRig(t, Options{Workers: WorkersMin})
	open := e.reads.shut()
	t.Cleanup(open)
	var readers []evloop.Conn
	for range 40 {
		k := r.open()
		r.subscribe(k, &wire.Subscribe{Topic: "t", Credit: 1 << 30})
		readers = append(readers, k)
	}
	<-e.reads.held
	asks := r.open()
	for range 3 {
		r.request(asks, 0, wire.OpMetadata, &wire.MetadataRequest{})
		var m wire.Metadata
		r.answer(asks, wire.OpMetadata.Response(), &m)
	}
	w := r.s.Workers()[1]
	if l := w.Lanes[laneHistory]; w.Workers > WorkersMin || l.Depth != len(readers)-1 || l.Waited == 0 {
		t.Fatalf("%+v", w)
	}
	open()
	for _, k := range readers {
		if got := r.deliver(k, wire.OpDeliver).values; !slices.Equal(got, want) {
			t.Fatalf("delivered %v", got)
		}
	}
}

// Requests beyond the bound are refused by name, and those that the connection
// sends once there is room are answered.
func TestRequestsBeyondTheBoundAreRefused(t *testing.T) {
	r := newRig(t, Options{})
	c := r.open()
	if err := r.s.offload.requests.Take(requestsMax); err != nil {
		t.Fatal(err)
	}
	r.request(c, 0, wire.OpMetadata, &wire.MetadataRequest{})
	if e := r.refusal(c, fault.ResourceExhausted, "requests"); e.Limit != requestsMax || e.Bits&fault.BitRetryable == 0 {
		t.Fatalf("refused with %+v", e)
	}
	if s := r.s.offload.waiting.Stats(); s.Held != 0 {
		t.Fatalf("%d bytes of what was refused are held", s.Held)
	}
	r.s.offload.requests.Give(requestsMax)
	r.request(c, 0, wire.OpMetadata, &wire.MetadataRequest{})
	var m wire.Metadata
	r.answer(c, wire.OpMetadata.Response(), &m)
	for _, q := range r.s.Queues() {
		if q.Name == "request" && (q.Refused != 1 || q.Capacity != requestsMax || q.Added != 1) {
			t.Errorf("%+v", q)
		}
	}
}

// Retention that removes the batch while it is looked up moves the answer with
// the log's start.
func TestOffsetsAreListedAgainAfterATrim(t *testing.T) {
	e := &hanging{Engine: openMem(t, 64<<20), syncs: &gate{}, reads: &gate{}}
	r := newRig(t, Options{Engine: e})
	r.topic("t", 1, message.AckAccepted)
	c := r.open()
	h, _ := r.producer(c, "t", message.AckAccepted, false)
	for range 20 {
		r.produce(c, h, 0, batchOf(t, message.Producer{}, strings.Repeat("x", 40<<10), 1))
		r.answer(c, wire.OpProduce.Response(), new(wire.ProduceOK))
	}
	tp, err := r.s.cat.Lookup("t")
	if err != nil {
		t.Fatal(err)
	}
	p := tp.Partitions[0]
	open := e.reads.shut()
	var listed sync.WaitGroup
	var got wire.Payload
	listed.Go(func() { got, err = r.s.listOffsets(&wire.ListOffsets{Topic: "t"}) })
	<-e.reads.held
	p.SetRetention(storage.Retention{MaxBytes: 1})
	if n, err := p.Retain(time.Now()); n == 0 || err != nil || p.Start() == 0 {
		t.Errorf("%d bytes removed, the log starts at %d: %v", n, p.Start(), err)
	}
	open()
	listed.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if a := got.(*wire.ListOffsetsOK); a.Offset != p.Start() || a.LogStart != p.Start() || a.TimestampUs == 0 {
		t.Errorf("%+v; the log starts at %d", a, p.Start())
	}
}

// What happens in the turn of a tick is shown without waiting for the next, which
// may be a second away.
func TestCountersOfATicksTurnAreShown(t *testing.T) {
	r := newRig(t, Options{})
	h := handler{r.l}
	r.l.call(func(l *loop) { l.stats.frames += 7 })
	h.Tick(nil, 0)
	h.TurnEnd(nil)
	if c := r.l.shared.counters(); c.Frames != 7 {
		t.Errorf("%d frames are shown", c.Frames)
	}
}

// In a loop's mail, calls (shutdown, answers) go before history and news, however
// much of these lies there and came first.
func TestCallsOvertakeDeliveries(t *testing.T) {
	r := newRig(t, Options{})
	r.topic("t", 1, message.AckAccepted)
	tp, err := r.s.cat.Lookup("t")
	if err != nil {
		t.Fatal(err)
	}
	p := tp.Partitions[0]
	p.SetInterest(r.l.id, true)
	r.s.Advanced(-1, p)
	r.s.Advanced(-1, p)
	reads := make([]*read, 1000)
	for i := range reads {
		reads[i] = r.l.newRead()
		reads[i].part = p // taken away when it has been looked at
		r.l.box.reads.Put(reads[i])
	}
	if n := r.l.box.parts.Stats().Depth; n != 1 {
		t.Fatalf("told %d times", n)
	}
	ran := false
	r.l.call(func(*loop) {
		ran = true
		if slices.ContainsFunc(reads, func(k *read) bool { return k.part == nil }) || p.Tell(r.l.id) {
			t.Error("deliveries went first")
		}
	})
	r.l.turnEnd()
	if !ran || slices.ContainsFunc(reads, func(k *read) bool { return k.part != nil }) || !p.Tell(r.l.id) {
		t.Error("something was left")
	}
	if n := len(r.l.spareReads); n != readsKept {
		t.Errorf("keeps %d reads", n)
	}
}

// Workers that tell a loop of news at the same time as it looks: the loop sees
// the last of them, and is told once while it has not looked.
func TestNewsAreNotLost(t *testing.T) {
	const tellers, each = 8, 5000
	r := newRig(t, Options{})
	r.topic("t", 1, message.AckAccepted)
	tp, err := r.s.cat.Lookup("t")
	if err != nil {
		t.Fatal(err)
	}
	p := tp.Partitions[0]
	var box bus.Box[*partition.Partition]
	var state, seen [tellers]int // each guarded by its mutex alone for the race detector's sake
	var mus [tellers]sync.Mutex
	wake := make(chan struct{}, 1)
	var wg sync.WaitGroup
	for i := range tellers {
		wg.Go(func() {
			for range each {
				mus[i].Lock()
				state[i]++
				mus[i].Unlock()
				if p.Tell(7) && box.Put(p) {
					wake <- struct{}{}
				}
			}
		})
	}
	var mail []*partition.Partition
	for done := false; !done; {
		<-wake
		if mail = box.Take(mail); len(mail) != 1 {
			t.Fatalf("told %d times", len(mail))
		}
		p.Told(7)
		done = true
		for i := range state {
			mus[i].Lock()
			seen[i] = state[i]
			mus[i].Unlock()
			done = done && seen[i] == each
		}
	}
	wg.Wait()
}

func TestWorkersAreChecked(t *testing.T) {
	for n, ok := range map[int]bool{0: true, 1: false, WorkersMin: true, WorkersMax: true, WorkersMax + 1: false} {
		err := Options{Workers: n}.Check()
		var f *fault.Error
		if (err == nil) != ok || !ok && (!errors.As(err, &f) || f.Field != "workers") {
			t.Errorf("%d workers: %v", n, err)
		}
	}
}
