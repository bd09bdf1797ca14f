package server

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/wire"
)

// adviser opens a producer that takes advice.
func (r *rig) adviser(c evloop.Conn, name string, wants wire.AdviceWants) (uint32, wire.Advice) {
	r.t.Helper()
	r.request(c, 0, wire.OpOpenProducer, &wire.OpenProducer{Topic: name, Ack: message.AckAccepted, Wants: wants})
	var ok wire.OpenProducerOK
	h := r.answer(c, wire.OpOpenProducer.Response(), &ok)
	return h.Handle, ok.Advice
}

// advised expects an ADVICE for a producer.
func (r *rig) advised(c evloop.Conn, handle uint32, want wire.Advice) {
	r.t.Helper()
	var x wire.Advice
	if h := r.answer(c, wire.OpAdvice, &x); h.Handle != handle || h.Correlation != 0 || x != want {
		r.t.Fatalf("handle %d, correlation %d: %+v; want handle %d: %+v", h.Handle, h.Correlation, x, handle, want)
	}
}

// reload changes the options further than the last time.
func (r *rig) reload(o *Options, change func(o *Options)) {
	r.t.Helper()
	change(o)
	if err := r.s.Reload(*o); err != nil {
		r.t.Fatal(err)
	}
}

const wantAll = wire.WantCompression | wire.WantEncoding

func says(a message.Algorithm, level compression.Level) wire.Advice {
	return wire.Advice{HasCompression: true, Algorithm: a, Level: uint8(level)}
}

// A producer is told what holds for it when it opens, and afterwards what
// changes, if it asked.
func TestAdvice(t *testing.T) {
	r := newRig(t, Options{})
	opts := r.s.opts
	r.topic("orders", 1, message.AckAccepted)
	r.topic("other", 1, message.AckAccepted)
	c := r.open()
	h, a := r.adviser(c, "orders", wantAll)
	if want := (wire.Advice{HasCompression: true, HasEncoding: true}); a != want {
		t.Fatalf("opened with %+v", a)
	}
	// One that wants half of it, one that is of a client without advice, and one
	// of another topic.
	half, a := r.adviser(c, "orders", wire.WantEncoding)
	if want := (wire.Advice{HasEncoding: true}); a != want {
		t.Fatalf("opened with %+v", a)
	}
	r.request(c, 0, wire.OpOpenProducer, &wire.OpenProducer{Topic: "orders"})
	if _, b := r.frame(c); !bytes.HasSuffix(b, []byte{0, 0}) || len(b) != 8+2+4+8+1+4+16+2 {
		t.Fatalf("an answer with options for a client that asked for none: % x", b)
	}
	other := r.open()
	o, _ := r.adviser(other, "other", wantAll)

	alter := func(mask uint32, d wire.TopicData) {
		t.Helper()
		r.request(c, 0, wire.OpTopicAlter, &wire.TopicAlter{Name: "orders", Mask: mask, Data: d})
	}
	// The answer to the request and what it causes may come in either order.
	var info wire.TopicInfo
	both := func(n int) (said map[uint32]wire.Advice) {
		t.Helper()
		said = map[uint32]wire.Advice{}
		for range n + 1 {
			switch hd, b := r.frame(c); hd.Opcode {
			case wire.OpTopicAlter.Response():
				if err := info.Parse(b); err != nil {
					t.Fatal(err)
				}
			case wire.OpAdvice:
				var x wire.Advice
				if err := x.Parse(b); err != nil {
					t.Fatal(err)
				}
				said[hd.Handle] = x
			default:
				t.Fatalf("%v came", hd.Opcode)
			}
		}
		return said
	}
	alter(wire.AlterCompression|wire.AlterCompressionLevel, wire.TopicData{Compression: wire.Choose(message.Zstd), Level: wire.Choose(uint8(compression.LevelSmallest))})
	if said := both(1); said[h] != says(message.Zstd, compression.LevelSmallest) {
		t.Fatalf("%+v", said)
	}
	if info.Data.Compression != wire.Choose(message.Zstd) {
		t.Errorf("described as %+v", info.Data)
	}
	alter(wire.AlterEncoding, wire.TopicData{Encoding: wire.Choose(message.CBOR)})
	cbor := wire.Advice{HasEncoding: true, Encoding: message.CBOR}
	if said := both(2); said[h] != cbor || said[half] != cbor {
		t.Fatalf("%+v", said)
	}

	// The broker's defaults are for who has none of his own.
	r.reload(&opts, func(o *Options) {
		o.Compression, o.CompressionLevel, o.Encoding = message.LZ4, compression.LevelBalanced, message.JSON
	})
	r.advised(other, o, wire.Advice{HasCompression: true, Algorithm: message.LZ4, Level: uint8(compression.LevelBalanced), HasEncoding: true, Encoding: message.JSON})
	r.quiet(c)
	alter(wire.AlterCompression|wire.AlterCompressionLevel, wire.TopicData{})
	if said := both(1); said[h] != says(message.LZ4, compression.LevelBalanced) {
		t.Fatalf("%+v", said)
	}

	// What changes nothing for anybody is told to nobody, also back and forth
	// before the loop looks.
	r.reload(&opts, func(o *Options) { o.Compression = message.Brotli })
	r.reload(&opts, func(o *Options) { o.Compression = message.LZ4 })
	alter(wire.AlterRetentionMs, wire.TopicData{})
	both(0)
	r.quiet(c)
	r.quiet(other)

	// What the topic asks for and is not accepted any more is the default.
	alter(wire.AlterCompression, wire.TopicData{Compression: wire.Choose(message.Gzip)})
	if said := both(1); said[h] != says(message.Gzip, compression.LevelBalanced) {
		t.Fatalf("%+v", said)
	}
	r.reload(&opts, func(o *Options) { o.Algorithms = []message.Algorithm{message.None, message.LZ4} })
	r.advised(c, h, says(message.LZ4, compression.LevelBalanced))
	for field, x := range map[string]wire.TopicData{
		"compression":       {Compression: wire.Choose(message.Gzip)},
		"compression_level": {Level: wire.Choose[uint8](9)},
	} {
		for _, p := range []wire.Payload{&wire.TopicAlter{Name: "orders", Mask: wire.AlterCompression | wire.AlterCompressionLevel, Data: x}, &wire.TopicCreate{Name: "new", Data: x}} {
			op := wire.OpTopicCreate
			if _, ok := p.(*wire.TopicAlter); ok {
				op = wire.OpTopicAlter
			}
			r.request(c, 0, op, p)
			var e wire.Error
			r.answer(c, wire.OpError.Response(), &e)
			if e.Field != field || fault.Code(e.Code) != fault.Invalid {
				t.Errorf("%v: %+v", op, e)
			}
		}
	}
	r.quiet(c)
}

// More producers than one turn looks at: all are told, once, and those that
// closed meanwhile are not.
func TestAdviceOfMany(t *testing.T) {
	r := newRig(t, Options{ProduceBytes: 1 << 40, ProducerBytes: 64 << 10})
	opts := r.s.opts
	r.topic("orders", 1, message.AckAccepted)
	c := r.open()
	handles := map[uint32]bool{}
	const n = 3*advicePerTurn + 7
	for i := range n {
		h, _ := r.adviser(c, "orders", wire.WantCompression)
		if i%5 == 0 {
			r.request(c, h, wire.OpCloseProducer, &wire.CloseProducer{})
			r.answer(c, wire.OpCloseProducer.Response(), &wire.Empty{})
		} else {
			handles[h] = true
		}
	}
	r.reload(&opts, func(o *Options) { o.Compression = message.Zstd })
	r.turn()
	if b := len(r.out[c]); b != 0 {
		t.Fatalf("%d bytes in the turn of the change", b)
	}
	r.turn()
	if each := wire.HeaderBytes + 8; len(r.out[c]) > advicePerTurn*each || len(r.out[c]) == 0 {
		t.Errorf("%d bytes of advice in one turn", len(r.out[c]))
	}
	for range len(handles) {
		var x wire.Advice
		h := r.answer(c, wire.OpAdvice, &x)
		if !handles[h.Handle] || x != says(message.Zstd, 0) {
			t.Fatalf("handle %d: %+v", h.Handle, x)
		}
		delete(handles, h.Handle)
	}
	r.quiet(c)
}

// dictionary trains one on messages of a kind.
func trained(t testing.TB, kind string) *compression.Dictionary {
	t.Helper()
	var samples [][]byte
	for i := range 400 {
		samples = append(samples, fmt.Appendf(nil, `{"kind":%q,"sequence":%d,"status":"delivered","customer":{"id":%d,"country":"NL"},"lines":[{"article":%d,"quantity":%d}]}`, kind, i, i*7919%1000, i*31%97, i%5))
	}
	b, err := compression.TrainDictionary(samples, compression.TrainOptions{MaxBytes: 4 << 10})
	if err != nil {
		t.Fatal(err)
	}
	d, err := compression.ParseDictionary(b)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// compressed is a batch of one message.
func compressed(t testing.TB, value []byte, d *compression.Dictionary) []byte {
	t.Helper()
	b := message.NewBuilder(message.DefaultLimits())
	if err := b.Append(&message.Message{Value: value, Timestamp: 1}); err != nil {
		t.Fatal(err)
	}
	out, err := b.Finish(nil, message.Producer{}, compression.Policy{Strategy: compression.Always, Algorithm: message.Zstd, Dictionary: d}.Compress)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A dictionary is handed out to whoever asks, advised where zstd is, and what is
// compressed with one that the topic does not have is refused.
func TestDictionaryOfTopic(t *testing.T) {
	r := newRig(t, Options{Compression: message.Zstd})
	opts := r.s.opts
	r.topic("orders", 1, message.AckAccepted)
	c := r.open()
	h, a := r.adviser(c, "orders", wantAll)
	if a.HasDictionary || !a.HasCompression {
		t.Fatalf("%+v", a)
	}
	d := trained(t, "order")
	value := []byte(`{"kind":"order","sequence":77,"status":"delivered","customer":{"id":5,"country":"NL"},"lines":[]}`)
	refused := func(handle uint32, batch []byte) {
		t.Helper()
		r.produce(c, handle, 0, batch)
		var e wire.Error
		r.answer(c, wire.OpError.Response(), &e)
		if fault.Code(e.Code) != fault.NotFound || e.Field != "dictionary" || e.Bits&(fault.BitClosesConnection|fault.BitClosesHandle|fault.BitRetryable) != 0 {
			t.Fatalf("%+v", e)
		}
	}
	refused(h, compressed(t, value, d))

	add := func(b []byte) {
		t.Helper()
		r.request(c, 0, wire.OpDictionaryAdd, &wire.DictionaryAdd{Topic: "orders", Bytes: b})
	}
	add([]byte("no dictionary"))
	var e wire.Error
	r.answer(c, wire.OpError.Response(), &e)
	if fault.Code(e.Code) != fault.Invalid || e.Field != "dictionary" {
		t.Fatalf("%+v", e)
	}
	add(d.Bytes())
	seen := 0
	for range 2 {
		switch hd, b := r.frame(c); hd.Opcode {
		case wire.OpDictionaryAdd.Response():
			var all wire.Dictionaries
			if err := all.Parse(b); err != nil || all.Active != d.ID() || len(all.All) != 1 || int(all.All[0].Bytes) != len(d.Bytes()) {
				t.Fatalf("%+v, %v", all, err)
			}
			seen++
		case wire.OpAdvice:
			var x wire.Advice
			if err := x.Parse(b); err != nil || x != (wire.Advice{HasDictionary: true, Dictionary: d.ID()}) {
				t.Fatalf("%+v, %v", x, err)
			}
			seen++
		}
	}
	if seen != 2 {
		t.Fatalf("%d of answer and advice", seen)
	}
	r.request(c, 0, wire.OpDictionaryGet, &wire.DictionaryGet{Topic: "orders", ID: d.ID()})
	var got wire.Dictionary
	r.answer(c, wire.OpDictionaryGet.Response(), &got)
	if !bytes.Equal(got.Bytes, d.Bytes()) {
		t.Fatalf("%d bytes", len(got.Bytes))
	}
	r.produce(c, h, 0, compressed(t, value, d))
	r.answer(c, wire.OpProduce.Response(), &wire.ProduceOK{})
	r.produce(c, h, 0, compressed(t, value, nil))
	r.answer(c, wire.OpProduce.Response(), &wire.ProduceOK{})
	refused(h, compressed(t, value, trained(t, "another")))

	// It is of no use with another algorithm, and comes back with zstd.
	r.reload(&opts, func(o *Options) { o.Compression = message.Snappy })
	r.advised(c, h, wire.Advice{HasCompression: true, Algorithm: message.Snappy, HasDictionary: true})
	r.reload(&opts, func(o *Options) { o.Compression = message.Zstd })
	r.advised(c, h, wire.Advice{HasCompression: true, Algorithm: message.Zstd, HasDictionary: true, Dictionary: d.ID()})
	r.request(c, 0, wire.OpDictionaryUse, &wire.DictionaryUse{Topic: "orders"})
	for range 2 {
		if hd, _ := r.frame(c); hd.Opcode != wire.OpDictionaryUse.Response() && hd.Opcode != wire.OpAdvice {
			t.Fatalf("%v", hd.Opcode)
		}
	}
	if _, a := r.adviser(c, "orders", wantAll); a.HasDictionary {
		t.Errorf("advised after it was put out of use: %+v", a)
	}
	for _, x := range []struct {
		op wire.Opcode
		p  wire.Payload
	}{
		{wire.OpDictionaryGet, &wire.DictionaryGet{Topic: "orders", ID: 77}},
		{wire.OpDictionaryGet, &wire.DictionaryGet{Topic: "none", ID: 77}},
		{wire.OpDictionaryUse, &wire.DictionaryUse{Topic: "orders", ID: 77}},
		{wire.OpDictionaryList, &wire.DictionaryList{Topic: "none"}},
	} {
		r.request(c, 0, x.op, x.p)
		var e wire.Error
		r.answer(c, wire.OpError.Response(), &e)
		if fault.Code(e.Code) != fault.NotFound {
			t.Errorf("%v: %+v", x.op, e)
		}
	}
}

// What is not accepted any more is taken for a while from producers that take advice,
// each kind for its own while, and from nobody else.
func TestAcceptHasAGrace(t *testing.T) {
	r := newRig(t, Options{Compression: message.Zstd})
	opts := r.s.opts
	r.topic("orders", 1, message.AckAccepted)
	c := r.open()
	h, _ := r.adviser(c, "orders", wire.WantLoad)
	deaf, _ := r.adviser(c, "orders", wire.WantEncoding) // on something else
	value := []byte(strings.Repeat("delivered ", 100))
	batch := compressed(t, value, nil)
	taken := func(handle uint32) {
		t.Helper()
		r.produce(c, handle, 0, batch)
		r.answer(c, wire.OpProduce.Response(), new(wire.ProduceOK))
	}
	refused := func(handle uint32) {
		t.Helper()
		r.produce(c, handle, 0, batch)
		var e wire.Error
		if r.answer(c, wire.OpError.Response(), &e); fault.Code(e.Code) != fault.NotSupported || e.Field != "attributes" {
			t.Fatalf("%+v", e)
		}
	}
	later := func(d time.Duration) { r.s.began = r.s.began.Add(-d) }
	narrow := func(a ...message.Algorithm) {
		t.Helper()
		r.reload(&opts, func(o *Options) { o.Compression, o.Algorithms = message.None, a })
		var x wire.Advice
		if r.answer(c, wire.OpAdvice, &x); !x.HasAccept {
			t.Fatalf("%+v", x)
		}
	}
	taken(h)
	taken(deaf)
	narrow(message.None, message.LZ4)
	taken(h)
	refused(deaf)
	// Another change does not prolong it, and what was never accepted has none.
	later(acceptGrace - time.Second)
	narrow(message.None)
	taken(h)
	later(time.Second)
	refused(h)
	batch[48] = batch[48]&^7 | byte(message.LZ4)
	message.Stamp(batch, 0, 0, 0, 0) // the header's checksum
	taken(h)
	batch[48] = batch[48]&^7 | byte(message.Brotli)
	message.Stamp(batch, 0, 0, 0, 0)
	refused(h)
	// It is accepted again, and its grace begins anew.
	narrow(message.None, message.Brotli)
	later(time.Hour)
	taken(h)
	taken(deaf)
	narrow(message.None)
	taken(h)
	refused(deaf)
}

// The default must be accepted, and a level be one.
func TestDefaultsAreChecked(t *testing.T) {
	for field, o := range map[string]Options{
		"compression":       {Compression: message.Zstd, Algorithms: []message.Algorithm{message.None}},
		"encoding":          {Encodings: []message.Encoding{message.JSON}},
		"compression_level": {CompressionLevel: 9},
	} {
		var f *fault.Error
		if err := o.Check(); !errors.As(err, &f) || f.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}
