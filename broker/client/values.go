package client

import (
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// Encode makes v the value of m, encoded as WithEncoding or SetEncoding says, or
// else as the broker advises, and notes the encoding in m. The memory of m.Value is reused.
//
// Errors: fault.Invalid for a value that the encoding has no form for.
func (p *Producer) Encode(m *message.Message, v any) error {
	p.mu.Lock()
	e := p.valueEncoding()
	p.mu.Unlock()
	return p.c.cfg.codecs.Encode(m, e, v)
}

// SetEncoding changes the encoding while messages are sent: it holds for later
// calls of Encode, and for messages sent later that name none; from then on no
// advice counts. No batch mixes
// encodings, and each consumer learns from the batch how to decode it, so
// nothing has to stop for the change.
func (p *Producer) SetEncoding(e message.Encoding) error {
	if !e.Valid() {
		return fault.New(fault.Invalid, p.op).WithField("encoding").WithDetail("%v is none", e)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.o.encodes = true
	if p.o.encoding == e {
		return nil
	}
	p.o.encoding = e
	for _, l := range p.lanes {
		p.shut(l) // what is in it was noted as before
	}
	p.poke()
	return nil
}

// Decode decodes the value of m, as its batch says it was encoded, into v, a
// pointer. What v holds does not alias m.
//
// Errors: fault.Corrupted, fault.TooLarge and fault.Invalid of the category
// serialization; a null value is fault.Invalid.
func (k *Consumer) Decode(m *message.Message, v any) error { return k.c.cfg.codecs.Decode(m, v) }
