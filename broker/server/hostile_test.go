package server

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// bystanders are a producer and a consumer that mind their own business while
// others misbehave: batch after batch, each waited for at both ends.
type bystanders struct {
	workers
	b      *broker
	stop   chan struct{}
	worst  time.Duration // longest round trip; after end
	rounds int
}

// worstRound is what a round trip may take while the broker is under attack and
// the machine is busy with the attackers; less than what an incomplete frame may
// take, so that waiting for that shows.
const worstRound = 20 * time.Second

// fastRounds are made by each pair without a rest: 80 MiB of two pairs. With rests
// they are 2 MiB a second, so that a fast machine does not fill the 256 MiB of a
// memlog while something else is waited for.
const fastRounds = 2000

func withBystanders(t *testing.T, b *broker) *bystanders {
	t.Helper()
	w := &bystanders{workers: workers{t: t}, b: b, stop: make(chan struct{})}
	b.topic("good", topic.Config{Partitions: 1})
	// As many pairs as loops: connections are spread evenly, so each loop has one
	// end of a pair at least.
	for i := range b.opts.Loops {
		p := join(t, b).producer(uint32(i), wire.OpenProducer{Topic: "good", Ack: b.opts.Engine.Levels().Strongest()})
		r := join(t, b).reader()
		if i == 0 {
			r.follow("good", 1, wire.StartLatest, 1<<20)
		}
		w.start("bystanders", func(f failer) {
			p.failer, r.failer = f, f
			for n := 1; ; n++ {
				rest := time.Duration(0)
				if n > fastRounds {
					rest = 20 * time.Millisecond
				}
				select {
				case <-w.stop:
					return
				case <-time.After(rest):
				}
				began := time.Now()
				p.send(0, 20, 1<<10)
				p.drain()
				if i > 0 {
					continue
				}
				for r.next[[2]uint32{0, 0}] < uint64(20*n) {
					r.deliver()
				}
				w.worst = max(w.worst, time.Since(began))
				w.rounds = n
			}
		})
	}
	return w
}

// end checks that the bystanders lost nothing and did not wait for long, and
// that memory stayed within its bound.
func (w *bystanders) end() {
	w.t.Helper()
	w.memory()
	close(w.stop)
	w.wait()
	if w.worst > worstRound || w.rounds == 0 {
		w.t.Errorf("the good pair made %d round trips, the longest took %v", w.rounds, w.worst)
	}
	w.t.Logf("%d round trips, the longest took %v", w.rounds, w.worst.Round(time.Millisecond))
}

// memory checks the pool: the tail, and for each loop its receive chunk, its
// budgets of borrowed input and of queued output, and one frame over each.
func (w *bystanders) memory() {
	w.t.Helper()
	st := w.b.Stats()
	if limit := int64(w.b.opts.TailBytes + w.b.opts.Loops*(1<<20+2*(8<<20)+2*wire.DefaultMaxFrame)); st.Pool.LiveBytes > limit {
		w.t.Errorf("%d bytes of the pool in use, more than %d", st.Pool.LiveBytes, limit)
	}
}

// hostileBroker has little memory, so that what leaks shows.
func hostileBroker(t *testing.T, s setting, o Options) *broker {
	o.Loops, o.TailBytes = 2, 2<<20
	return s.start(t, o)
}

// frameOf makes a frame by hand.
func frameOf(h wire.Header, payload string) []byte {
	h.Length = uint32(wire.HeaderBytes - 4 + len(payload))
	return append(wire.AppendHeader(nil, h), payload...)
}

// Whatever a connection begins with, it is answered in a way its sender
// understands, or closed.
func TestBadBeginnings(t *testing.T) {
	t.Parallel() // it waits
	hello := func(h wire.Hello) []byte {
		return wire.AppendFrame(wire.AppendPreface(nil, 1, 1), wire.Header{Opcode: wire.OpHello, Correlation: 1}, &h)
	}
	preface := string(wire.AppendPreface(nil, 1, 1))
	for _, tc := range []struct {
		name  string
		say   []byte
		text  string // the raw answer begins with it
		code  fault.Code
		field string
		limit int64
	}{
		{name: "noise", say: []byte("\x00\x01\x02\x03\x04\x05\x06\x07"), code: fault.ProtocolViolation, field: "magic"},
		{name: "http get", say: []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), text: "HTTP/1.1 400"},
		{name: "http2", say: []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), text: "HTTP/1.1 400"},
		{name: "long http post", say: []byte("POST /x HTTP/1.1\r\n\r\n" + strings.Repeat("x", 300_000)), text: "HTTP/1.1 400"},
		{name: "tls", say: []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), text: "\x15\x03\x03\x00\x02\x02\x28"},
		{name: "version of the future", say: wire.AppendPreface(nil, 7, 9), code: fault.VersionUnsupported, field: "versions"},
		{name: "no range of versions", say: wire.AppendPreface(nil, 9, 1), code: fault.ProtocolViolation, field: "versions"},
		{name: "metadata first", say: wire.AppendFrame([]byte(preface), wire.Header{Opcode: wire.OpMetadata}, &wire.MetadataRequest{}),
			code: fault.ProtocolViolation, field: "opcode"},
		{name: "long first frame", say: append([]byte(preface), wire.AppendHeader(nil, wire.Header{Length: 5000, Opcode: wire.OpHello})...),
			code: fault.TooLarge, field: "length", limit: wire.PreAuthFrameBytes},
		{name: "endless first frame", say: append([]byte(preface), "\xff\xff\xff\xff"...), code: fault.TooLarge, field: "length", limit: wire.PreAuthFrameBytes},
		{name: "frame without header", say: append([]byte(preface), 3, 0, 0, 0), code: fault.ProtocolViolation, field: "length", limit: wire.HeaderBytes},
		{name: "reserved flags", say: append([]byte(preface), frameOf(wire.Header{Opcode: wire.OpHello, Flags: 0x80}, "")...), code: fault.ProtocolViolation, field: "flags"},
		{name: "api version of the future", say: append([]byte(preface), frameOf(wire.Header{Opcode: wire.OpHello, Version: 9}, "")...),
			code: fault.VersionUnsupported, field: "api_version"},
		{name: "empty hello", say: append([]byte(preface), frameOf(wire.Header{Opcode: wire.OpHello}, "")...), code: fault.ProtocolViolation, field: "features"},
		{name: "hello with a tail", say: append([]byte(preface), frameOf(wire.Header{Opcode: wire.OpHello}, string((&wire.Hello{}).Append(nil))+"x")...),
			code: fault.ProtocolViolation, field: "payload"},
		{name: "small max frame", say: hello(wire.Hello{MaxFrame: 4096}), code: fault.Invalid, field: "max_frame", limit: wire.MinMaxFrame},
		{name: "large max frame", say: hello(wire.Hello{MaxFrame: 1 << 31}), code: fault.TooLarge, field: "max_frame", limit: wire.MaxMaxFrame},
		{name: "half a preface", say: []byte("PTSK")},
		{name: "half a hello", say: hello(wire.Hello{})[:20]},
		{name: "nothing"},
	} {
		t.Run(strings.ReplaceAll(tc.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			for _, events := range []string{evloop.EngineStd, ""} {
				o := Options{Loops: 1, Network: evloop.Options{PreTimeout: patience}} // however slow this is, it is heard
				if tc.text == "" && tc.code == fault.None {
					o.Network.PreTimeout = 300 * time.Millisecond
				}
				b := setting{events: events, store: "memlog"}.start(t, o)
				p := dial(t, b, 0)
				p.write(tc.say)
				switch {
				case tc.text != "":
					// All of it, and then the end: also when much was sent that nobody read.
					got, err := io.ReadAll(io.LimitReader(p.c, 4096))
					if err != nil || !strings.HasPrefix(string(got), tc.text) {
						t.Fatalf("answered %q, %v", got, err)
					}
				case tc.code != fault.None:
					h, body := p.frame()
					var e wire.Error
					if h.Opcode != wire.OpError.Response() || e.Parse(body) != nil {
						t.Fatalf("answered %s", describe(h, body))
					}
					if e.Code != tc.code || e.Field != tc.field || e.Bits&fault.BitClosesConnection == 0 || tc.limit != 0 && e.Limit != tc.limit {
						t.Fatalf("refused with %+v", e)
					}
					p.ended()
				default:
					p.lost() // by the time that a beginning may take
				}
			}
		})
	}
}

// badBatch is what is wrong with a batch: change edits it, and its header is
// sealed again if reseal says so.
type badBatch struct {
	name   string
	change func(b []byte) []byte
	reseal bool
	code   fault.Code
	field  string
}

var badBatches = []badBatch{
	{"magic", func(b []byte) []byte { b[0] = 'X'; return b }, true, fault.Corrupted, "magic"},
	{"version of the future", func(b []byte) []byte { b[3] = '2'; return b }, true, fault.NewerFormat, "magic"},
	{"body_len beyond the frame", func(b []byte) []byte { b[48] |= byte(message.Zstd); return put32(4, 1<<20)(b) }, true, fault.Invalid, "body_len"},
	{"body_len beyond the limit", put32(4, 1<<30), true, fault.TooLarge, "body_len"},
	{"body_len of nothing", put32(4, 0), true, fault.Invalid, "body_len"},
	{"bytes behind the batch", func(b []byte) []byte { return append(b, 1, 2, 3) }, true, fault.Invalid, "body_len"},
	{"cut off", func(b []byte) []byte { return b[:len(b)-1] }, true, fault.Invalid, "body_len"},
	{"no messages", put32(40, 0), true, fault.Invalid, "count"},
	{"more messages than offsets", put32(40, 50), true, fault.Invalid, "last_offset_delta"},
	{"more messages than bytes", func(b []byte) []byte { return put32(40, 5000)(put32(44, 4999)(b)) }, true, fault.Invalid, "uncompressed_len"},
	{"too many messages", func(b []byte) []byte { return put32(40, 1<<20)(put32(44, 1<<20-1)(b)) }, true, fault.TooLarge, "last_offset_delta"},
	{"holes in the offsets", put32(44, 100), true, fault.Invalid, "attributes"},
	{"uncompressed_len", put32(72, 123), true, fault.Invalid, "uncompressed_len"},
	{"a bomb", func(b []byte) []byte { b[48] |= byte(message.Zstd); return put32(72, 31<<20)(b) }, true, fault.TooLarge, "uncompressed_len"},
	{"beyond what may be decompressed", func(b []byte) []byte { b[48] |= byte(message.Zstd); return put32(72, 1<<31)(b) }, true, fault.TooLarge, "uncompressed_len"},
	{"unknown compression", func(b []byte) []byte { b[48] |= 7; return b }, true, fault.NotSupported, "attributes"},
	{"kafka", func(b []byte) []byte { b[48] |= 1 << 5; return b }, true, fault.NotSupported, "attributes"},
	{"reserved bit", func(b []byte) []byte { b[49] |= 1 << 2; return b }, true, fault.NotSupported, "attributes"},
	{"control", func(b []byte) []byte { b[48] |= 1 << 7; return b }, true, fault.Invalid, "attributes"},
	{"a section that is not there", func(b []byte) []byte { b[49] |= 1 << 0; return put32(72, uint32(len(b)-80-16))(b) }, true, fault.Corrupted, "section_len"},
	{"a key table longer than the batch", func(b []byte) []byte {
		b[49] |= 1 << 3
		return put32(40, 60000)(put32(44, 59999)(b))
	}, true, fault.Invalid, "body_len"},
	{"a base offset at the end of all", func(b []byte) []byte { return put32(12, 0x7fffffff)(put32(8, 0xffffffff)(b)) }, true, fault.Invalid, "base_offset"},
	{"header checksum", func(b []byte) []byte { b[60] ^= 1; return b }, false, fault.Corrupted, "header_crc"},
	{"body checksum", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, false, fault.Corrupted, "body_crc"},
}

func put32(at int, v uint32) func([]byte) []byte {
	return func(b []byte) []byte {
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
}

// reseal computes the header checksum anew, as a liar with a client library
// would: CRC32C of the seed (0) and the envelope without the checksum.
func reseal(b []byte) {
	t := crc32.MakeTable(crc32.Castagnoli)
	c := crc32.Update(0, t, make([]byte, 8))
	c = crc32.Update(c, t, b[:32])
	binary.LittleEndian.PutUint32(b[32:], crc32.Update(c, t, b[36:80]))
}

// Batches that lie are refused by name, one by one; the connection, its producer
// and its credit live on, and not a byte of them is stored.
func TestLyingBatches(t *testing.T) {
	onEach(t, func(t *testing.T, s setting) {
		b := hostileBroker(t, s, Options{})
		w := withBystanders(t, b)
		b.topic("t", topic.Config{})
		p := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
		granted := p.credit
		var refused wire.Error
		p.onError = func(_ uint32, e *wire.Error) { refused = *e }
		good := slices.Clone(p.build(0, 10, 100))
		p.next[0] = 0
		for _, tc := range badBatches {
			bad := tc.change(slices.Clone(good))
			if tc.reseal {
				reseal(bad)
			}
			refused = wire.Error{}
			p.produce(0, bad)
			p.drain()
			if refused.Code != tc.code || refused.Field != tc.field || refused.Opcode != wire.OpProduce || refused.Bits != 0 {
				t.Errorf("%s: refused with %v, field %q, bits %v; want %v, field %q", tc.name, refused.Code, refused.Field, refused.Bits, tc.code, tc.field)
			}
		}
		refused = wire.Error{}
		p.produce(9, good)
		p.drain()
		if refused.Code != fault.NotFound || refused.Field != "partition" || refused.Limit != 0 || refused.Value != 9 {
			t.Errorf("partition 9: %+v", refused)
		}
		if p.credit != granted {
			t.Errorf("%d bytes of credit after refusals, %d were granted", p.credit, granted)
		}
		p.send(0, 10, 100)
		p.drain()
		if p.acked != 1 || p.ack.BaseOffset != 0 {
			t.Errorf("the first good batch: %d acks, %+v", p.acked, p.ack)
		}
		r := join(t, b).reader()
		h, _ := r.subscribe(wire.Subscribe{Topic: "t", Credit: 1 << 20})
		r.parts[h] = 0
		r.next[[2]uint32{0, 1}] = 0
		r.until(10)
		w.end()
	})
}

// badFrames are the frames of one connection each, the correlation set by the
// test.
func badFrames() []badFrame {
	oddOption := "\x05\x00\x07\x00\x01\x00x"
	sub := func(m wire.Subscribe) string { return string(m.Append(nil)) }
	return []badFrame{
		{"endless", []byte("\xff\xff\xff\xff"), fault.TooLarge, "length", true},
		{"without header", []byte("\x04\x00\x00\x00"), fault.ProtocolViolation, "length", true},
		{"one byte over the limit", wire.AppendHeader(nil, wire.Header{Length: wire.DefaultMaxFrame - 3, Opcode: wire.OpPing}), fault.TooLarge, "length", true},
		{"garbage", bytes.Repeat([]byte("garbage!"), 4), fault.TooLarge, "length", true},
		{"reserved flags", frameOf(wire.Header{Opcode: wire.OpPing, Flags: 8}, "12345678"), fault.ProtocolViolation, "flags", true},
		{"api version of the future", frameOf(wire.Header{Opcode: wire.OpPing, Version: 2}, "12345678"), fault.VersionUnsupported, "api_version", false},
		{"unknown opcode", frameOf(wire.Header{Opcode: 77}, "what?"), fault.NotSupported, "opcode", false},
		{"auth", frameOf(wire.Header{Opcode: wire.OpAuth}, ""), fault.NotSupported, "opcode", false},
		{"an answer", frameOf(wire.Header{Opcode: wire.OpProduce.Response()}, ""), fault.NotSupported, "opcode", false},
		{"deliver", frameOf(wire.Header{Opcode: wire.OpDeliver}, ""), fault.NotSupported, "opcode", false},
		{"goaway", frameOf(wire.Header{Opcode: wire.OpGoAway}, ""), fault.NotSupported, "opcode", false},
		{"second hello", wire.AppendFrame(nil, wire.Header{Opcode: wire.OpHello}, &wire.Hello{}), fault.ProtocolViolation, "opcode", true},
		{"short ping", frameOf(wire.Header{Opcode: wire.OpPing}, "1234"), fault.ProtocolViolation, "nonce", true},
		{"long ping", frameOf(wire.Header{Opcode: wire.OpPing}, "123456789"), fault.ProtocolViolation, "payload", true},
		{"produce without a batch", frameOf(wire.Header{Opcode: wire.OpProduce, Handle: 0xffffff}, "\x00\x00\x00\x00\x00\x00"), fault.HandleUnknown, "handle", false},
		{"unknown producer", frameOf(wire.Header{Opcode: wire.OpCloseProducer, Handle: 3}, "\x00\x00"), fault.HandleUnknown, "handle", false},
		{"unknown subscription", frameOf(wire.Header{Opcode: wire.OpUnsubscribe, Handle: 3}, "\x00\x00"), fault.HandleUnknown, "handle", false},
		{"too many topics", frameOf(wire.Header{Opcode: wire.OpMetadata}, "\xff\xff\xff\xff\x00\x00"), fault.ProtocolViolation, "topics", true},
		{"more topics than bytes", frameOf(wire.Header{Opcode: wire.OpMetadata}, "\x10\x27\x00\x00\x00\x00"), fault.ProtocolViolation, "topics", true},
		{"odd option", frameOf(wire.Header{Opcode: wire.OpClose}, oddOption), fault.NotSupported, "options", false},
		{"option beyond the section", frameOf(wire.Header{Opcode: wire.OpClose}, "\x04\x00\x02\x00\xff\xff"), fault.ProtocolViolation, "options", true},
		{"bad topic name", frameOf(wire.Header{Opcode: wire.OpTopicCreate}, string((&wire.TopicCreate{Name: "a/b"}).Append(nil))), fault.Invalid, "topic", false},
		{"long topic name", frameOf(wire.Header{Opcode: wire.OpTopicDelete}, string((&wire.TopicDelete{Name: strings.Repeat("a", 250)}).Append(nil))), fault.TooLarge, "topic", false},
		{"not utf-8", frameOf(wire.Header{Opcode: wire.OpTopicDelete}, string((&wire.TopicDelete{Name: "\xff\xfe"}).Append(nil))), fault.ProtocolViolation, "topic", true},
		{"too many partitions", frameOf(wire.Header{Opcode: wire.OpTopicCreate}, string((&wire.TopicCreate{Name: "x", Partitions: 4097}).Append(nil))), fault.TooLarge, "partitions", false},
		{"unknown topic", frameOf(wire.Header{Opcode: wire.OpSubscribe}, sub(wire.Subscribe{Topic: "none"})), fault.NotFound, "topic", false},
		{"unknown partition", frameOf(wire.Header{Opcode: wire.OpSubscribe}, sub(wire.Subscribe{Topic: "good", Partition: 1 << 31})), fault.NotFound, "partition", false},
		{"offset beyond the end", frameOf(wire.Header{Opcode: wire.OpSubscribe}, sub(wire.Subscribe{Topic: "good", Start: wire.StartOffset, StartValue: 1 << 60})), fault.OutOfRange, "offset", false},
		{"negative offset", frameOf(wire.Header{Opcode: wire.OpSubscribe}, sub(wire.Subscribe{Topic: "good", Start: wire.StartOffset, StartValue: -1})), fault.Invalid, "start_value", false},
		{"unknown start", frameOf(wire.Header{Opcode: wire.OpSubscribe}, sub(wire.Subscribe{Topic: "good", Start: 9})), fault.Invalid, "start", false},
		{"boundless credit", frameOf(wire.Header{Opcode: wire.OpSubscribe}, sub(wire.Subscribe{Topic: "good", Credit: 1<<40 + 1})), fault.TooLarge, "credit", false},
		{"overflowing credit", frameOf(wire.Header{Opcode: wire.OpCredit}, "\xff\xff\xff\xff\xff\xff\xff\xff\x00"), fault.TooLarge, "bytes", false},
		{"unknown ack level", frameOf(wire.Header{Opcode: wire.OpOpenProducer}, string((&wire.OpenProducer{Topic: "good", Ack: 7}).Append(nil))), fault.Invalid, "ack", false},
		{"negative fetch", frameOf(wire.Header{Opcode: wire.OpFetch}, string((&wire.Fetch{Topic: "good", Offset: -5}).Append(nil))), fault.Invalid, "offset", false},
	}
}

type badFrame struct {
	name   string
	frame  []byte
	code   fault.Code
	field  string
	closes bool
}

// Frames that break a rule are refused by name; whether the connection survives
// is as the protocol says.
func TestBadFrames(t *testing.T) {
	onEach(t, func(t *testing.T, s setting) {
		b := hostileBroker(t, s, Options{})
		w := withBystanders(t, b)
		for _, tc := range badFrames() {
			p := join(t, b)
			if len(tc.frame) >= wire.HeaderBytes && tc.name != "garbage" {
				binary.LittleEndian.PutUint32(tc.frame[8:], 42)
			}
			p.write(tc.frame)
			h, body := p.frame()
			var e wire.Error
			if h.Opcode != wire.OpError.Response() || e.Parse(body) != nil {
				t.Errorf("%s: %s", tc.name, describe(h, body))
				continue
			}
			if e.Code != tc.code || e.Field != tc.field || e.Bits&fault.BitClosesConnection != 0 != tc.closes {
				t.Errorf("%s: refused with %v, field %q, bits %v; want %v, field %q, closes %t", tc.name, e.Err(), e.Field, e.Bits, tc.code, tc.field, tc.closes)
			}
			if tc.closes {
				p.ended()
			} else {
				if h.Correlation != 42 {
					t.Errorf("%s: refused with correlation %d", tc.name, h.Correlation)
				}
				p.ping()
				p.cut()
			}
		}
		w.end()
	})
}
