package server

import (
	"bytes"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// told is what a producer was advised last. The broker knows what each producer
// should be told at any time from its topic and its own settings, so nothing is
// queued: Server.changes counts the changes, each producer knows how many it was
// told of, and is told what is new with its next answer, in the same write. After
// a change every loop also goes through its producers, a part each turn, and tells
// those that had no answer meanwhile: at once, or a second later where it is the
// load that has changed. Changes that follow quickly come as one.
type told struct {
	dictionary uint32
	accept     uint16
	fanOut     uint16
	algorithm  message.Algorithm
	level      uint8
	encoding   message.Encoding
	strategy   compression.Strategy
	policy     uint64
	hasLoad    bool // load and fanOut are told
	load       wire.Load
}

// advicePerTurn bounds how many producers a loop looks at in one turn: some
// 20 µs without, 200 µs with something to say to each.
const advicePerTurn = 512

// advice is what the settings of t and of the broker say. What the topic asks
// for and the broker does not accept is the broker's default, which it accepts.
func (v *live) advice(t *topic.Topic) told {
	c := t.Config()
	a := told{strategy: compression.Strategy(c.Strategy.Or(uint8(v.strategy))), accept: v.algorithms, policy: v.policy, algorithm: c.Compression.Or(v.algorithm), level: c.Level.Or(uint8(v.level)), encoding: c.Encoding.Or(v.encoding)}
	if !v.accepts(message.Attributes(0).WithAlgorithm(a.algorithm).WithEncoding(v.encoding)) {
		a.algorithm = v.algorithm
	}
	if !v.accepts(message.Attributes(0).WithAlgorithm(v.algorithm).WithEncoding(a.encoding)) {
		a.encoding = v.encoding
	}
	if a.strategy == compression.Never {
		a.algorithm = message.None // for clients that know no strategies
	}
	if a.algorithm == message.Zstd || a.strategy == compression.Adaptive {
		a.dictionary = t.ActiveDictionary()
	}
	return a
}

// advice is what a producer on t that wants this is to be told now.
func (s *Server) advice(v *live, t *topic.Topic, wants wire.AdviceWants) told {
	a := v.advice(t)
	if a.hasLoad = wantsLoad(wants, a.strategy); a.hasLoad {
		a.load, a.fanOut = unpackLoad(s.load.Load()), t.FanOut()
	}
	return a
}

// news is what a producer that was told old has to be told of a, as far as it
// wants.
func (a told) news(old told, wants wire.AdviceWants) (x wire.Advice) {
	if wants&wire.WantCompression != 0 {
		x.HasCompression = a.algorithm != old.algorithm || a.level != old.level
		x.HasDictionary = a.dictionary != old.dictionary
		x.Algorithm, x.Level, x.Dictionary = a.algorithm, a.level, a.dictionary
	}
	if wants&wire.WantEncoding != 0 {
		x.HasEncoding, x.Encoding = a.encoding != old.encoding, a.encoding
	}
	if wants&wire.WantStrategy != 0 {
		x.HasStrategy, x.Strategy = a.strategy != old.strategy, uint8(a.strategy)
	}
	if wants&(wire.WantStrategy|wire.WantLoad) != 0 {
		x.HasAccept, x.Accept = a.accept != old.accept, a.accept
		x.HasPolicy, x.Policy = a.policy != old.policy, a.policy
	}
	if a.hasLoad {
		if !old.hasLoad {
			old.load = wire.UnknownLoad
		}
		x.HasLoad, x.Load = a.load != old.load, a.load
		x.HasFanOut, x.FanOut = a.fanOut != old.fanOut || !old.hasLoad, a.fanOut
	}
	return x
}

// opening is all of a that a producer wants.
func (a told) opening(wants wire.AdviceWants) wire.Advice {
	x := a.news(told{}, wants)
	x.HasCompression = wants&wire.WantCompression != 0
	x.HasDictionary = x.HasCompression && a.dictionary != 0
	x.HasEncoding = wants&wire.WantEncoding != 0
	x.HasStrategy = wants&wire.WantStrategy != 0
	return x
}

// advise counts a change, which is to be seen already, and makes every loop look at
// its producers.
func (s *Server) advise() { s.adviseThose(s.changes.Add(1)) }

// adviseThose makes every loop look at its producers that were not told of n
// changes.
func (s *Server) adviseThose(n uint32) {
	for _, l := range s.loops {
		l.call(func(l *loop) {
			if l.advising == 0 || int32(n-l.adviseTo) > 0 {
				l.adviseTo = n
			}
			l.advising = 1
			l.ev.Wake() // turnEnd begins with it
		})
	}
}

// adviseSome goes on with what advise began.
func (l *loop) adviseSome() {
	for range advicePerTurn {
		i := l.advising
		if !l.prods.Has(i) {
			l.advising = 0
			return
		}
		l.advising++
		p := l.prods.Slot(i) // of any use
		if p.level <= message.AckDurable && int32(p.heard-l.adviseTo) < 0 {
			l.tell(i, p)
		}
	}
	l.ev.Wake() // the rest in the next turn
}

// tell tells the producer i what is new for it, if anything is. It allocates
// nothing, and is a comparison if nothing has changed for anybody.
func (l *loop) tell(i uint32, p *producer) {
	n := l.srv.changes.Load() // before what it counts the changes of
	if p.heard == n {
		return
	}
	p.heard = n
	if p.wants == 0 {
		return
	}
	now := l.srv.advice(l.srv.live.Load(), p.topic, p.wants)
	x := &l.msg.advice
	*x = now.news(p.told, p.wants)
	l.note(p, now)
	if !x.Empty() {
		_ = l.send(evloop.Conn{Index: p.conn, Gen: p.gen}, wire.Header{Opcode: wire.OpAdvice, Handle: handleOf(i, p.use)}, x) // a connection that cannot take it ends
	}
}

// checkDictionary refuses a batch that is compressed with a dictionary its topic
// does not have: nobody could read it. The broker looks at the first bytes of
// the body, which say so, and no further. It returns the dictionary's id, 0 for
// none.
func (l *loop) checkDictionary(t *topic.Topic, b []byte, e *message.Envelope) (id uint32, err error) {
	_, body, err := message.Split(b, e)
	if err != nil {
		return 0, err
	}
	id, _ = compression.FrameDictionary(body)
	if id != 0 && !t.UsesDictionary(id, l.turn.wall) {
		return 0, fault.New(fault.NotFound, "produce").WithField("dictionary").
			WithDetail("topic %q has no dictionary %08x, with which the batch is compressed", t.Name, id)
	}
	return id, nil
}

// checkData refuses settings of a topic that the broker does not take.
func (s *Server) checkData(op string, x *wire.TopicData) error {
	v := s.live.Load()
	bad := func(field, format string, args ...any) error {
		return fault.New(fault.Invalid, op).WithField(field).WithDetail(format, args...).WithCategory(fault.CategoryTopic)
	}
	if a, ok := x.Compression.Value(); ok && !v.accepts(message.Attributes(0).WithAlgorithm(a).WithEncoding(v.encoding)) {
		return bad("compression", "the broker is configured not to take %s", a)
	}
	if n, ok := x.Strategy.Value(); ok {
		if err := (compression.Policy{Strategy: compression.Strategy(n)}).Validate(); err != nil {
			return bad("compression_strategy", "%d is no strategy", n)
		}
	}
	if n, ok := x.Level.Value(); ok {
		if err := (compression.Policy{Level: compression.Level(n)}).Validate(); err != nil {
			return bad("compression_level", "%d is no level", n)
		}
	}
	if e, ok := x.Encoding.Value(); ok && !v.accepts(message.Attributes(0).WithAlgorithm(v.algorithm).WithEncoding(e)) {
		return bad("encoding", "the broker is configured not to take %s values", e)
	}
	return nil
}

// dictionaryRequest parses a request about dictionaries, as request does.
func (s *Server) dictionaryRequest(op wire.Opcode, payload []byte) (func() (wire.Payload, error), error) {
	switch op {
	case wire.OpDictionaryGet:
		var m wire.DictionaryGet
		err := m.Parse(payload)
		return func() (wire.Payload, error) {
			b, err := s.cat.LoadDictionary(m.Topic, m.ID)
			return &wire.Dictionary{Bytes: b}, err
		}, err
	case wire.OpPolicyGet:
		err := new(wire.Empty).Parse(payload)
		return func() (wire.Payload, error) {
			if v := s.live.Load(); v.artefact != nil {
				return &wire.Dictionary{Bytes: v.artefact}, nil
			}
			return nil, fault.New(fault.NotFound, "get policy").WithField("artefact").WithDetail("the broker has none of its own")
		}, err
	case wire.OpDictionaryAdd:
		var m wire.DictionaryAdd
		err := m.Parse(payload)
		b := bytes.Clone(m.Bytes) // the frame goes
		return func() (wire.Payload, error) {
			d, err := compression.ParseDictionary(b)
			if err != nil {
				return nil, err
			}
			return s.dictionaries(s.cat.AddDictionary(m.Topic, d.ID(), b))
		}, err
	case wire.OpDictionaryUse:
		var m wire.DictionaryUse
		err := m.Parse(payload)
		return func() (wire.Payload, error) { return s.dictionaries(s.cat.UseDictionary(m.Topic, m.ID)) }, err
	default: // wire.OpDictionaryList
		var m wire.DictionaryList
		err := m.Parse(payload)
		return func() (wire.Payload, error) { return dictionariesOf(s.cat.Lookup(m.Topic)) }, err
	}
}

// dictionaries tells producers what is new and describes those of t.
func (s *Server) dictionaries(t *topic.Topic, err error) (wire.Payload, error) {
	if err == nil {
		s.advise()
	}
	return dictionariesOf(t, err)
}

func dictionariesOf(t *topic.Topic, err error) (wire.Payload, error) {
	if err != nil {
		return nil, err
	}
	active, all := t.Dictionaries()
	x := &wire.Dictionaries{Active: active}
	for _, d := range all {
		x.All = append(x.All, wire.DictionaryInfo{ID: d.ID, Bytes: uint32(d.Bytes), AddedUs: d.AddedUs})
	}
	return x, nil
}
