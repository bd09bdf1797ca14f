package client

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

// dictionaries are the compression dictionaries that a client's producers and
// consumers share, got from the broker when they are first needed. Those of a
// topic are kept while somebody uses the topic, at most dictionariesKept, the
// last used. Safe for concurrent use.
type dictionaries struct {
	mu     sync.Mutex
	topics map[string]*topicDictionaries // guarded by mu
}

type topicDictionaries struct {
	users int
	known []*compression.Dictionary // the last used first
	asked map[uint32]chan struct{}  // closed when the request was answered
}

// dictionariesKept is twice what a broker keeps of a topic. It also bounds what
// one delivery may need.
const dictionariesKept = 16

// use and unuse frame the life of a producer or consumer.
func (ds *dictionaries) use(topic string) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.topics == nil {
		ds.topics = make(map[string]*topicDictionaries)
	}
	t := ds.topics[topic]
	if t == nil {
		t = &topicDictionaries{asked: make(map[uint32]chan struct{})}
		ds.topics[topic] = t
	}
	t.users++
}

func (ds *dictionaries) unuse(topic string) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if t := ds.topics[topic]; t != nil {
		if t.users--; t.users == 0 {
			delete(ds.topics, topic)
		}
	}
}

// forget drops what is known of a topic that does not exist any more: another
// may come under its name.
func (ds *dictionaries) forget(topic string) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if t := ds.topics[topic]; t != nil {
		t.known = nil
	}
}

// known returns a dictionary if it is here.
func (ds *dictionaries) known(topic string, id uint32) *compression.Dictionary {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if t := ds.topics[topic]; t != nil {
		return t.find(id)
	}
	return nil
}

func (t *topicDictionaries) find(id uint32) *compression.Dictionary {
	i := slices.IndexFunc(t.known, func(d *compression.Dictionary) bool { return d.ID() == id })
	if i < 0 {
		return nil
	}
	d := t.known[i]
	copy(t.known[1:i+1], t.known[:i])
	t.known[0] = d
	return d
}

// get returns a dictionary, and asks the broker for it if need be: once for
// however many want it.
//
// Errors: fault.NotFound if the topic does not have it, fault.ProtocolViolation
// if what came is not it; those of a request.
func (ds *dictionaries) get(ctx context.Context, l *link, topic string, id uint32) (*compression.Dictionary, error) {
	for {
		ds.mu.Lock()
		t := ds.topics[topic]
		if t == nil { // its last user has gone
			ds.mu.Unlock()
			return nil, closedErr("get dictionary")
		}
		if d := t.find(id); d != nil {
			ds.mu.Unlock()
			return d, nil
		}
		other := t.asked[id]
		done := make(chan struct{})
		if other == nil {
			t.asked[id] = done
		}
		ds.mu.Unlock()
		if other != nil {
			select {
			case <-other:
			case <-ctx.Done():
				return nil, ctxErr(ctx, "get dictionary", "asked for already")
			}
			continue // it is there, or it is our turn to ask
		}
		d, err := ask(ctx, l, topic, id)
		ds.mu.Lock()
		if d != nil {
			t.known = slices.Insert(t.known, 0, d)
			t.known = t.known[:min(len(t.known), dictionariesKept)]
		}
		delete(t.asked, id)
		close(done)
		ds.mu.Unlock()
		return d, err
	}
}

// ask gets a dictionary from the broker.
func ask(ctx context.Context, l *link, topic string, id uint32) (*compression.Dictionary, error) {
	var resp copied
	if err := l.call(ctx, wire.OpDictionaryGet, &wire.DictionaryGet{Topic: topic, ID: id}, &resp, true, nil); err != nil {
		return nil, err
	}
	d, err := compression.ParseDictionary(resp.Bytes)
	if err == nil && d.ID() != id {
		err = fmt.Errorf("it has the id %08x", d.ID())
	}
	if err != nil {
		return nil, fault.New(fault.ProtocolViolation, "get dictionary").WithField("dictionary").
			WithDetail("what came as dictionary %08x of topic %s is not it", id, topic).WithCause(err)
	}
	return d, nil
}

// copied is a Dictionary that outlives its frame.
type copied struct{ wire.Dictionary }

func (x *copied) Parse(src []byte) error {
	err := x.Dictionary.Parse(src)
	x.Bytes = slices.Clone(x.Bytes)
	return err
}

// DictionaryError says that a batch was compressed with a dictionary that cannot
// be got: the topic does not have it, or what came is not it. The partition is
// not consumed further, so nothing is passed over: after Seek to From the batch
// is tried again; Seek to Next passes over it.
type DictionaryError struct {
	Topic      string
	Partition  uint32
	ID         uint32
	From, Next message.Offset // of the batch, half-open
	Err        error
}

func (e *DictionaryError) Error() string {
	return fmt.Sprintf("consume %s-%d: offsets [%d, %d) need dictionary %08x of the topic, which cannot be got: %v", e.Topic, e.Partition, e.From, e.Next, e.ID, e.Err)
}

// Unwrap returns why, usually a fault.NotFound.
func (e *DictionaryError) Unwrap() error { return e.Err }

// Dictionaries describes the compression dictionaries of a topic.
type Dictionaries struct {
	Active uint32           // what producers are advised to use; 0: none
	All    []DictionaryInfo // oldest first
}

// DictionaryInfo describes one dictionary.
type DictionaryInfo = wire.DictionaryInfo

func (a *Admin) dictionaries(ctx context.Context, verb, topic string, op wire.Opcode, req wire.Payload, repeat bool) (Dictionaries, error) {
	if err := wire.CheckTopicName(topic); err != nil {
		return Dictionaries{}, err
	}
	var resp wire.Dictionaries
	if err := a.c.links[0].call(ctx, op, req, &resp, repeat, nil); err != nil {
		return Dictionaries{}, fmt.Errorf("%s of %s: %w", verb, topic, err)
	}
	return Dictionaries{Active: resp.Active, All: resp.All}, nil
}

// ListDictionaries describes the dictionaries of a topic. Errors: fault.NotFound.
func (a *Admin) ListDictionaries(ctx context.Context, topic string) (Dictionaries, error) {
	return a.dictionaries(ctx, "list dictionaries", topic, wire.OpDictionaryList, &wire.DictionaryList{Topic: topic}, true)
}

// Dictionary returns the bytes of a dictionary, in zstd's format. Errors:
// fault.NotFound.
func (a *Admin) Dictionary(ctx context.Context, topic string, id uint32) ([]byte, error) {
	if err := wire.CheckTopicName(topic); err != nil {
		return nil, err
	}
	d, err := ask(ctx, a.c.links[0], topic, id)
	if err != nil {
		return nil, fmt.Errorf("get dictionary %08x of %s: %w", id, topic, err)
	}
	return d.Bytes(), nil
}

// AddDictionary gives a topic a dictionary (compression.TrainDictionary makes
// one), which its producers are advised to use from then on where they compress
// with zstd. It may be called again with the same one.
//
// Errors: fault.NotFound for the topic, fault.Invalid and fault.TooLarge for the
// bytes, fault.Exists if other bytes have or had the same id,
// fault.ResourceExhausted if the topic has as many as it can and the oldest may
// still be needed.
func (a *Admin) AddDictionary(ctx context.Context, topic string, b []byte) (Dictionaries, error) {
	return a.dictionaries(ctx, "add dictionary", topic, wire.OpDictionaryAdd, &wire.DictionaryAdd{Topic: topic, Bytes: b}, false)
}

// UseDictionary advises producers to use one of the dictionaries that the topic
// has, or none with id 0. Errors: fault.NotFound.
func (a *Admin) UseDictionary(ctx context.Context, topic string, id uint32) (Dictionaries, error) {
	return a.dictionaries(ctx, "use dictionary", topic, wire.OpDictionaryUse, &wire.DictionaryUse{Topic: topic, ID: id}, false)
}
