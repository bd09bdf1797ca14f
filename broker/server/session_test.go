package server

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/wire"
)

// refusal expects an ERROR with the code and returns it.
func (r *rig) refusal(c evloop.Conn, code fault.Code, field string) wire.Error {
	r.t.Helper()
	var e wire.Error
	r.answer(c, wire.OpError.Response(), &e)
	if e.Code != code || e.Field != field {
		r.t.Fatalf("refused with %v, field %q; expected %v, field %q", e.Err(), e.Field, code, field)
	}
	return e
}

func TestStrangersAreAnswered(t *testing.T) {
	for _, tc := range []struct{ name, say, want string }{
		{"http", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400"},
		{"tls", "\x16\x03\x01\x02\x00\x01\x00", "\x15\x03\x03\x00\x02"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, Options{})
			c := r.connect()
			r.bytes(c, []byte(tc.say))
			if !strings.HasPrefix(string(r.out[c]), tc.want) {
				t.Fatalf("answered %q", r.out[c])
			}
			if r.users[c] != nil {
				t.Fatal("the connection lives")
			}
		})
	}
	t.Run("noise", func(t *testing.T) {
		r := newRig(t, Options{})
		c := r.connect()
		r.bytes(c, []byte("\x00\x01\x02\x03\x04\x05\x06\x07"))
		e := r.refusal(c, fault.ProtocolViolation, "magic")
		if e.Bits&fault.BitClosesConnection == 0 || r.users[c] != nil {
			t.Fatal("the connection lives")
		}
	})
}

func TestHelloComesFirst(t *testing.T) {
	r := newRig(t, Options{})
	c := r.connect()
	r.bytes(c, wire.AppendPreface(nil, 1, 1))
	r.request(c, 0, wire.OpMetadata, &wire.MetadataRequest{})
	r.refusal(c, fault.ProtocolViolation, "opcode")
	if r.users[c] != nil {
		t.Fatal("the connection lives")
	}
}

func TestPreAuthenticationFramesAreSmall(t *testing.T) {
	r := newRig(t, Options{})
	c := r.connect()
	r.bytes(c, wire.AppendPreface(nil, 1, 1))
	r.bytes(c, wire.AppendHeader(nil, wire.Header{Length: 1 << 20, Opcode: wire.OpHello}))
	e := r.refusal(c, fault.TooLarge, "length")
	if e.Limit != wire.PreAuthFrameBytes {
		t.Fatalf("limit %d", e.Limit)
	}
}

func TestNoCommonVersion(t *testing.T) {
	r := newRig(t, Options{})
	c := r.connect()
	r.bytes(c, wire.AppendPreface(nil, 7, 9))
	r.refusal(c, fault.VersionUnsupported, "versions")
}

func TestProduceAndDeliver(t *testing.T) {
	r := newRig(t, Options{})
	r.topic("t", 2, message.AckAccepted)
	p, k := r.open(), r.open()
	sub, ok := r.subscribe(k, &wire.Subscribe{Topic: "t", Partition: 1, Start: wire.StartEarliest, Credit: 1 << 20})
	if ok.Start != 0 || ok.HWM != 0 {
		t.Fatalf("subscribed at %+v", ok)
	}
	h, grant := r.producer(p, "t", message.AckAccepted, false)
	if grant.Credit == 0 || grant.Partitions != 2 {
		t.Fatalf("granted %+v", grant)
	}
	corr := r.produce(p, h, 1, batchOf(t, message.Producer{}, "a", 3))
	r.produce(p, h, 1, batchOf(t, message.Producer{}, "b", 2))
	var ack wire.ProduceOK
	if hd := r.answer(p, wire.OpProduce.Response(), &ack); hd.Correlation != corr || ack.BaseOffset != 0 || ack.Partition != 1 || ack.Credit == 0 {
		t.Fatalf("ack %+v %+v", hd, ack)
	}
	r.answer(p, wire.OpProduce.Response(), &ack)
	if ack.BaseOffset != 3 {
		t.Fatalf("second batch at %d", ack.BaseOffset)
	}
	d := r.deliver(k, wire.OpDeliver)
	if !slices.Equal(d.values, []string{"a-0", "a-1", "a-2", "b-0", "b-1"}) || d.head.Partition != 1 || d.head.HWM != 5 {
		t.Fatalf("delivered %v %+v", d.values, d.head)
	}
	if got := r.l.subs.At(sub & handlesMax).credit; got != 1<<20-int64(d.frame) {
		t.Fatalf("credit %d after a frame of %d", got, d.frame)
	}
	r.quiet(k)
}

func TestStartInMidBatch(t *testing.T) {
	r := newRig(t, Options{})
	r.topic("t", 1, message.AckAccepted)
	c := r.open()
	h, _ := r.producer(c, "t", message.AckNone, false)
	r.produce(c, h, 0, batchOf(t, message.Producer{}, "a", 5))
	r.quiet(c) // no ack at level none
	r.subscribe(c, &wire.Subscribe{Topic: "t", Start: wire.StartOffset, StartValue: 3, Credit: 1 << 20})
	if d := r.deliver(c, wire.OpDeliver); !slices.Equal(d.values, []string{"a-3", "a-4"}) || d.head.Wanted != 3 {
		t.Fatalf("delivered %v, wanted %d", d.values, d.head.Wanted)
	}
}

func TestCreditStopsDelivery(t *testing.T) {
	r := newRig(t, Options{})
	r.topic("t", 1, message.AckAccepted)
	c := r.open()
	h, _ := r.producer(c, "t", message.AckNone, false)
	sub, _ := r.subscribe(c, &wire.Subscribe{Topic: "t", Credit: 0})
	r.produce(c, h, 0, batchOf(t, message.Producer{}, "a", 1))
	r.quiet(c)
	r.request(c, sub, wire.OpCredit, &wire.Credit{Bytes: 1})
	if d := r.deliver(c, wire.OpDeliver); !slices.Equal(d.values, []string{"a-0"}) {
		t.Fatalf("delivered %v", d.values)
	}
	r.produce(c, h, 0, batchOf(t, message.Producer{}, "b", 1))
	r.quiet(c) // the credit is below zero by the first frame
	r.request(c, sub, wire.OpCredit, &wire.Credit{Bytes: 1 << 20})
	if d := r.deliver(c, wire.OpDeliver); !slices.Equal(d.values, []string{"b-0"}) {
		t.Fatalf("delivered %v", d.values)
	}
}

// A frame that the socket takes byte by byte arrives whole, with acks between
// frames and never inside one, and also when its chunks are recycled meanwhile.
func TestHalfWrittenFrames(t *testing.T) {
	for _, recycle := range []bool{false, true} {
		t.Run(fmt.Sprintf("recycle=%v", recycle), func(t *testing.T) {
			r := newRig(t, Options{})
			r.topic("t", 1, message.AckAccepted)
			k, p := r.open(), r.open()
			r.subscribe(k, &wire.Subscribe{Topic: "t", Credit: 1 << 20})
			h, _ := r.producer(p, "t", message.AckAccepted, false)
			kh, _ := r.producer(k, "t", message.AckAccepted, false)
			r.room[k] = 10
			for i := range 3 {
				r.produce(p, h, 0, batchOf(t, message.Producer{}, fmt.Sprintf("m%d", i), 4))
			}
			r.turn()
			if len(r.l.half) != 1 {
				t.Fatal("the frame is not half written")
			}
			r.produce(k, kh, 0, batchOf(t, message.Producer{}, "own", 1)) // its ack must wait
			r.turn()
			if recycle {
				for range 64 { // push the chunks out of the pool's memory
					r.pool.Retire(r.pool.Get(1 << 20))
				}
			}
			for len(r.l.half) > 0 {
				r.room[k] = 7
				r.l.writable(k)
				r.turn()
			}
			delete(r.room, k)
			r.l.writable(k)
			want := []string{"m0-0", "m0-1", "m0-2", "m0-3", "m1-0", "m1-1", "m1-2", "m1-3", "m2-0", "m2-1", "m2-2", "m2-3"}
			if d := r.deliver(k, wire.OpDeliver); !slices.Equal(d.values, want) {
				t.Fatalf("delivered %v", d.values)
			}
			var ack wire.ProduceOK
			r.answer(k, wire.OpProduce.Response(), &ack)
			if d := r.deliver(k, wire.OpDeliver); !slices.Equal(d.values, []string{"own-0"}) {
				t.Fatalf("delivered %v", d.values)
			}
			if recycle != (r.l.stats.leases > 0) {
				t.Fatalf("%d leases", r.l.stats.leases)
			}
		})
	}
}

func TestHistoryComesFromTheLog(t *testing.T) {
	r := newRig(t, Options{})
	r.topic("t", 1, message.AckAccepted)
	c := r.open()
	h, _ := r.producer(c, "t", message.AckAccepted, false)
	var want []string
	for i := range 20 {
		r.produce(c, h, 0, batchOf(t, message.Producer{}, fmt.Sprint("m", i), 2))
		var ack wire.ProduceOK
		r.answer(c, wire.OpProduce.Response(), &ack)
		want = append(want, fmt.Sprintf("m%d-0", i), fmt.Sprintf("m%d-1", i))
	}
	for range 64 {
		r.pool.Retire(r.pool.Get(1 << 20))
	}
	r.subscribe(c, &wire.Subscribe{Topic: "t", Credit: 1 << 30, MaxDeliverBytes: 300})
	var got []string
	for len(got) < len(want) {
		got = append(got, r.deliver(c, wire.OpDeliver).values...)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("delivered %v", got)
	}
	if r.l.stats.historyReads == 0 {
		t.Fatal("nothing was read from the log")
	}
}

func TestFetch(t *testing.T) {
	r := newRig(t, Options{})
	r.topic("t", 1, message.AckAccepted)
	c := r.open()
	r.request(c, 0, wire.OpFetch, &wire.Fetch{Topic: "t", MaxBytes: 1 << 20})
	if d := r.deliver(c, wire.OpFetch.Response()); len(d.values) != 0 {
		t.Fatalf("fetched %v", d.values)
	}
	r.request(c, 0, wire.OpFetch, &wire.Fetch{Topic: "t", MaxBytes: 1 << 20, MinBytes: 1, MaxWaitMs: 60_000})
	r.quiet(c)
	h, _ := r.producer(c, "t", message.AckNone, false)
	r.produce(c, h, 0, batchOf(t, message.Producer{}, "a", 1))
	if d := r.deliver(c, wire.OpFetch.Response()); !slices.Equal(d.values, []string{"a-0"}) {
		t.Fatalf("fetched %v", d.values)
	}
	if len(r.l.fetches) != 0 {
		t.Fatal("the fetch is still there")
	}
	r.request(c, 0, wire.OpFetch, &wire.Fetch{Topic: "t", Offset: 99, MaxBytes: 1})
	if e := r.refusal(c, fault.OutOfRange, "offset"); rangeOf(e) != "[0, 1)" {
		t.Fatalf("the range is not named: %+v", e)
	}
}

// rangeOf is the valid range that an out-of-range names.
func rangeOf(e wire.Error) string {
	bound := map[string]string{}
	for _, d := range e.Details {
		bound[d.Key] = d.Value
	}
	return "[" + bound["log_start"] + ", " + bound["log_end"] + ")"
}

func TestRefusals(t *testing.T) {
	r := newRig(t, Options{})
	r.topic("t", 1, message.AckAccepted)
	c := r.open()
	r.request(c, 0, wire.OpOpenProducer, &wire.OpenProducer{Topic: "none"})
	r.refusal(c, fault.NotFound, "topic")
	r.request(c, 0, wire.OpOpenProducer, &wire.OpenProducer{Topic: "t", Ack: message.AckDurable})
	r.refusal(c, fault.LevelUnavailable, "ack")
	r.request(c, 0, wire.OpSubscribe, &wire.Subscribe{Topic: "t", Partition: 9})
	r.refusal(c, fault.NotFound, "partition")
	r.request(c, 77, wire.OpUnsubscribe, &wire.Unsubscribe{})
	r.refusal(c, fault.HandleUnknown, "handle")
	r.request(c, 0, wire.OpTopicCreate, &wire.TopicCreate{Name: "t"})
	r.refusal(c, fault.Exists, "topic")
	r.request(c, 0, wire.OpTopicCreate, &wire.TopicCreate{Name: "u", Visibility: message.AckDurable})
	r.refusal(c, fault.LevelUnavailable, "visibility")
	r.request(c, 0, wire.OpTopicAlter, &wire.TopicAlter{Name: "t", Mask: wire.AlterPartitions, Partitions: 4})
	r.refusal(c, fault.NotSupported, "mask")

	h, _ := r.producer(c, "t", message.AckAccepted, false)
	b := batchOf(t, message.Producer{}, "a", 1)
	b[len(b)-1] ^= 1
	r.produce(c, h, 0, b)
	var e wire.Error
	r.answer(c, wire.OpError.Response(), &e)
	if e.Code != fault.Corrupted {
		t.Fatalf("a flipped bit was answered with %v", e.Err())
	}
	r.produce(c, h, 3, batchOf(t, message.Producer{}, "a", 1))
	r.refusal(c, fault.NotFound, "partition")
	r.quiet(c)
	if r.users[c] == nil {
		t.Fatal("the connection did not survive")
	}
}

func TestDuplicatesAreAcknowledgedOnce(t *testing.T) {
	r := newRig(t, Options{})
	r.topic("t", 1, message.AckAccepted)
	c := r.open()
	h, ok := r.producer(c, "t", message.AckAccepted, true)
	if ok.ProducerID == 0 {
		t.Fatal("no producer id")
	}
	b := batchOf(t, message.Producer{ID: ok.ProducerID}, "a", 2)
	var ack wire.ProduceOK
	for i := range 3 {
		r.produce(c, h, 0, slices.Clone(b))
		r.answer(c, wire.OpProduce.Response(), &ack)
		if dup := ack.Flags&wire.ProduceDuplicate != 0; ack.BaseOffset != 0 || dup != (i > 0) {
			t.Fatalf("ack %d: %+v", i, ack)
		}
	}
	r.produce(c, h, 0, batchOf(t, message.Producer{ID: ok.ProducerID, Sequence: 5}, "c", 1))
	r.refusal(c, fault.OutOfSequence, "base_sequence")
	r.produce(c, h, 0, batchOf(t, message.Producer{ID: ok.ProducerID, Sequence: 2}, "b", 1))
	r.answer(c, wire.OpProduce.Response(), &ack)
	if ack.BaseOffset != 2 {
		t.Fatalf("the next batch is at %d", ack.BaseOffset)
	}
}

func TestProducerCreditIsTheMemoryBound(t *testing.T) {
	r := newRig(t, Options{ProduceBytes: 256 << 10, ProducerBytes: 64 << 10})
	r.topic("t", 1, message.AckAccepted)
	a, b := r.open(), r.open()
	var sum uint64
	var last uint32
	for i := range 6 {
		h, ok := r.producer(a, "t", message.AckAccepted, false)
		sum += ok.Credit
		if ok.Credit == 0 && ok.CreditReason != wire.CreditMemory {
			t.Fatalf("producer %d has no credit and no reason", i)
		}
		last = h
	}
	if sum != 256<<10 {
		t.Fatalf("granted %d in all", sum)
	}
	h, ok := r.producer(b, "t", message.AckAccepted, false)
	if ok.Credit != 0 {
		t.Fatalf("granted %d over the bound", ok.Credit)
	}
	r.produce(b, h, 0, batchOf(t, message.Producer{}, "x", 1))
	r.refusal(b, fault.CreditExceeded, "credit")
	if r.users[b] != nil {
		t.Fatal("a producer that overdraws its credit lives")
	}
	// The two that waited are served, in order, when others go.
	_ = last
	var credit wire.Credit
	first, _ := splitHandle(last)
	for i := uint32(1); i < first-1; i++ {
		r.request(a, handleOf(i, r.l.prods.Slot(i).use), wire.OpCloseProducer, &wire.CloseProducer{})
	}
	n := 0
	for n < 2 {
		hd, body := r.frame(a)
		if hd.Opcode == wire.OpCredit {
			if err := credit.Parse(body); err != nil || credit.Bytes == 0 {
				t.Fatalf("credit %+v, %v", credit, err)
			}
			n++
		}
	}
}

func TestDiskLowStopsProducingOnly(t *testing.T) {
	r := newRig(t, Options{})
	r.topic("t", 1, message.AckAccepted)
	c := r.open()
	h, _ := r.producer(c, "t", message.AckAccepted, false)
	r.produce(c, h, 0, batchOf(t, message.Producer{}, "a", 1))
	var ack wire.ProduceOK
	r.answer(c, wire.OpProduce.Response(), &ack)
	r.s.low.Store(true)
	r.produce(c, h, 0, batchOf(t, message.Producer{}, "b", 1))
	if e := r.refusal(c, fault.StorageFull, "storage"); e.Bits&fault.BitRetryable == 0 || e.RetryAfterMs == 0 {
		t.Fatalf("not retryable: %+v", e)
	}
	r.subscribe(c, &wire.Subscribe{Topic: "t", Credit: 1 << 20})
	if d := r.deliver(c, wire.OpDeliver); !slices.Equal(d.values, []string{"a-0"}) {
		t.Fatalf("delivered %v", d.values)
	}
	r.s.low.Store(false)
	r.produce(c, h, 0, batchOf(t, message.Producer{}, "b", 1))
	r.answer(c, wire.OpProduce.Response(), &ack)
}

func TestDeletedTopicEndsItsSubscriptions(t *testing.T) {
	r := newRig(t, Options{})
	r.topic("t", 3, message.AckAccepted)
	k, a := r.open(), r.open()
	r.subscribe(k, &wire.Subscribe{Topic: "t", Partition: 2, Credit: 1 << 20})
	h, _ := r.producer(k, "t", message.AckAccepted, false)
	r.request(a, 0, wire.OpTopicDelete, &wire.TopicDelete{Name: "t"})
	r.answer(a, wire.OpTopicDelete.Response(), &wire.Empty{})
	r.refusal(k, fault.NotFound, "topic")
	r.produce(k, h, 2, batchOf(t, message.Producer{}, "a", 1))
	r.refusal(k, fault.NotFound, "topic")
	if r.l.subs.Top() != 2 || r.l.subs.Live() != 0 {
		t.Fatal("the subscription was not freed")
	}
}

func TestMetadata(t *testing.T) {
	r := newRig(t, Options{NodeID: "n7"})
	r.topic("b", 2, message.AckAccepted)
	r.topic("a", 1, message.AckAccepted)
	c := r.open()
	var m wire.Metadata
	r.request(c, 0, wire.OpMetadata, &wire.MetadataRequest{})
	r.answer(c, wire.OpMetadata.Response(), &m)
	if len(m.Topics) != 2 || m.Topics[0].Name != "a" || len(m.Topics[1].Partitions) != 2 || m.NodeID != "n7" || m.ClusterID == "" {
		t.Fatalf("%+v", m)
	}
	if !m.Topics[0].HasLevel(message.AckAccepted) || m.Topics[0].HasLevel(message.AckDurable) {
		t.Fatal("memory does not declare its levels")
	}
	r.request(c, 0, wire.OpMetadata, &wire.MetadataRequest{Topics: []string{"b", "zz"}})
	r.answer(c, wire.OpMetadata.Response(), &m)
	if len(m.Topics) != 2 || m.Topics[1].Err != fault.NotFound {
		t.Fatalf("%+v", m.Topics)
	}
}

func TestListOffsets(t *testing.T) {
	r := newRig(t, Options{})
	r.topic("t", 1, message.AckAccepted)
	c := r.open()
	h, _ := r.producer(c, "t", message.AckNone, false)
	r.produce(c, h, 0, batchOf(t, message.Producer{}, "a", 4))
	r.turn()
	var ok wire.ListOffsetsOK
	for _, tc := range []struct {
		kind  wire.StartKind
		value int64
		want  message.Offset
	}{{wire.StartEarliest, 0, 0}, {wire.StartLatest, 0, 4}, {wire.StartTime, 1, 0}, {wire.StartTime, 1 << 60, 4}} {
		r.request(c, 0, wire.OpListOffsets, &wire.ListOffsets{Topic: "t", Start: tc.kind, StartValue: tc.value})
		r.answer(c, wire.OpListOffsets.Response(), &ok)
		if ok.Offset != tc.want || ok.HWM != 4 || (tc.want == 0) != (ok.TimestampUs > 0) {
			t.Fatalf("%v %d: %+v", tc.kind, tc.value, ok)
		}
	}
}

func TestClosedConnectionsLeaveNothing(t *testing.T) {
	r := newRig(t, Options{})
	r.topic("t", 1, message.AckAccepted)
	free := r.s.budget.free
	for range 50 {
		c := r.open()
		r.producer(c, "t", message.AckAccepted, true)
		r.subscribe(c, &wire.Subscribe{Topic: "t", Credit: 1})
		r.request(c, 0, wire.OpFetch, &wire.Fetch{Topic: "t", MinBytes: 1, MaxBytes: 1, MaxWaitMs: 1000})
		r.end(c, errors.New("gone"))
	}
	if r.s.budget.free != free || len(r.l.fetches) != 0 || r.l.subs.Top() > 3 || r.l.prods.Top() > 2 {
		t.Fatalf("left: budget %d of %d, %d fetches, %d subscriptions, %d producers", r.s.budget.free, free, len(r.l.fetches), r.l.subs.Top(), r.l.prods.Top())
	}
	if p := r.s.cat.ByNum(0); p.Interest() != 0 {
		t.Fatal("the loop still asks for news")
	}
}

// A frame read from the log that meets a full socket waits behind what was
// queued before it, here the answer to the very SUBSCRIBE that asked for it.
func TestDeliveryWaitsBehindItsSubscribeAnswer(t *testing.T) {
	r := newRig(t, Options{})
	r.topic("t", 1, message.AckAccepted)
	p, k := r.open(), r.open()
	h, _ := r.producer(p, "t", message.AckAccepted, false)
	r.produce(p, h, 0, batchOf(t, message.Producer{}, "a", 2))
	var ack wire.ProduceOK
	r.answer(p, wire.OpProduce.Response(), &ack)
	for range 64 {
		r.pool.Retire(r.pool.Get(1 << 20)) // the batch is in the log only
	}
	r.room[k] = 0
	r.request(k, 0, wire.OpSubscribe, &wire.Subscribe{Topic: "t", Credit: 1 << 20})
	for len(r.l.half) == 0 {
		r.turn()
		if len(r.l.half) == 0 {
			<-r.wake
		}
	}
	for len(r.l.half) > 0 {
		r.room[k] = 5
		if !r.held[k] {
			r.flush(k)
		}
		r.l.writable(k)
		r.turn()
	}
	delete(r.room, k)
	var ok wire.SubscribeOK
	r.answer(k, wire.OpSubscribe.Response(), &ok)
	if d := r.deliver(k, wire.OpDeliver); !slices.Equal(d.values, []string{"a-0", "a-1"}) {
		t.Fatalf("delivered %v", d.values)
	}
}
