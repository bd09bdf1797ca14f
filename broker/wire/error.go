package wire

import (
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/portask/portask/broker/fault"
)

// bitHasLimit in the bits on the wire: value and limit mean something. The bits
// below it are fault.Bits.
const bitHasLimit = 16

const bitsKnown = uint8(fault.BitRetryable|fault.BitRetryElsewhere|fault.BitClosesHandle|fault.BitClosesConnection) | bitHasLimit

// Error is the payload of an ERROR: the answer to a request that failed, by its
// correlation, or news about a handle or the whole connection, with correlation
// 0. The bits, not the code, say what is left standing and whether to try again,
// so that codes of a newer peer can be handled.
//
//	┌──────────┬─────────────┬─────────┬────────────────┬────────────┬─────────┐
//	│ code u16 │ category u8 │ bits u8 │ retry after ms │ opcode u16 │ op      │
//	│          │             │         │ u32            │            │ str 256 │
//	├──────────┴┬─────────┬──┴────────┬┴──────────┬─────┴─────┬──────┴─────────┴────┬─────────┐
//	│ message   │ field   │ limit i64 │ value i64 │ u8 n ≤ 16 │ n × (code u16,      │ options │
//	│ str 4096  │ str 256 │           │           │           │      text str 1024) │         │
//	└───────────┴─────────┴───────────┴───────────┴───────────┴─────────────────────┴─────────┘
//
//	bits: 1 retryable · 2 retry elsewhere · 4 closes the handle · 8 closes the
//	connection · 16 value and limit are stated · others 0
//
//	option 2: n ≤ 16 details, one behind the other
//	┌────────┬─────────┬────────┬─────────┬────
//	│ key    │ value   │ key    │ value   │ ...
//	│ str 64 │ str 256 │ str 64 │ str 256 │
//	└────────┴─────────┴────────┴─────────┴────
type Error struct {
	Code         fault.Code
	Category     fault.Category
	Bits         fault.Bits
	RetryAfterMs uint32 // 0 = not stated
	Opcode       Opcode // of the request refused, 0 = none
	Op           string // what the sender was doing
	Message      string
	Field        string
	Limit, Value int64 // meaningful if HasLimit
	HasLimit     bool
	Chain        []ChainItem // causes, outermost first
	Details      []fault.Detail
}

// optErrorDetails is the id of the option with the details.
const optErrorDetails = 2

// ChainItem is one cause of an Error.
type ChainItem struct {
	Code fault.Code // fault.None = an error without a code
	Text string
}

// Append implements Payload. Texts beyond their limits are cut.
func (x *Error) Append(dst []byte) []byte {
	bits := uint8(x.Bits)
	if x.HasLimit {
		bits |= bitHasLimit
	}
	dst = le.AppendUint16(dst, uint16(x.Code))
	dst = append(dst, uint8(x.Category), bits)
	dst = le.AppendUint32(dst, x.RetryAfterMs)
	dst = le.AppendUint16(dst, uint16(x.Opcode))
	dst = appendText(dst, x.Op, MaxNameBytes)
	dst = appendText(dst, x.Message, MaxTextBytes)
	dst = appendText(dst, x.Field, MaxNameBytes)
	dst = le.AppendUint64(dst, uint64(x.Limit))
	dst = le.AppendUint64(dst, uint64(x.Value))
	chain := x.Chain[:min(len(x.Chain), MaxChain)]
	dst = append(dst, uint8(len(chain)))
	for _, i := range chain {
		dst = le.AppendUint16(dst, uint16(i.Code))
		dst = appendText(dst, i.Text, MaxCauseBytes)
	}
	var options []byte
	if details := x.Details[:min(len(x.Details), MaxDetails)]; len(details) > 0 {
		var b []byte
		for _, d := range details {
			b = appendText(appendText(b, d.Key, MaxDetailKeyBytes), d.Value, MaxNameBytes)
		}
		options = AppendOption(nil, optErrorDetails, b)
	}
	return appendOptions(dst, options)
}

// Parse implements Payload.
func (x *Error) Parse(src []byte) error {
	c := cursor{name: "ERROR", b: src}
	x.Code = fault.Code(c.u16("code"))
	if c.err == nil && x.Code == fault.None {
		c.fail(violation(c.name, "code", "an error without a code"))
	}
	x.Category = fault.Category(c.u8("category"))
	bits := c.u8("bits")
	if bits&^bitsKnown != 0 {
		c.fail(violation(c.name, "bits", "reserved bits %#x are set", bits&^bitsKnown))
	}
	x.Bits = fault.Bits(bits &^ bitHasLimit)
	x.HasLimit = bits&bitHasLimit != 0
	x.RetryAfterMs = c.u32("retry_after_ms")
	x.Opcode = Opcode(c.u16("opcode"))
	x.Op = c.str("op", MaxNameBytes)
	x.Message = c.str("message", MaxTextBytes)
	x.Field = c.str("field", MaxNameBytes)
	x.Limit = c.i64("limit")
	x.Value = c.i64("value")
	x.Chain = x.Chain[:0]
	for range c.count("chain", uint32(c.u8("chain")), MaxChain, 4) {
		x.Chain = append(x.Chain, ChainItem{Code: fault.Code(c.u16("chain.code")), Text: c.str("chain.text", MaxCauseBytes)})
	}
	x.Details = c.details(c.options(1<<optErrorDetails), x.Details[:0])
	return c.end()
}

// details reads the details among the options into dst.
func (c *cursor) details(o Options, dst []fault.Detail) []fault.Detail {
	b, _ := o.Lookup(optErrorDetails)
	in := cursor{name: c.name, b: b}
	for in.err == nil && len(in.b) > 0 {
		if len(dst) == MaxDetails {
			in.fail(violation(c.name, "details", "too many").WithLimit(MaxDetails+1, MaxDetails))
			break
		}
		dst = append(dst, fault.Detail{Key: in.str("details.key", MaxDetailKeyBytes), Value: in.str("details.value", MaxNameBytes)})
	}
	if in.err != nil {
		c.fail(in.err)
	}
	return dst
}

// FromError returns the frame that reports err, which is not nil, as the answer
// to op. An error without a code is reported as fault.CodeOf says.
func FromError(err error, op Opcode) Error {
	x := Error{Opcode: op}
	info := fault.InfoOf(err)
	x.Category, x.Bits = info.Category, info.Bits()
	e := fault.Find(err)
	if e == nil { // nobody's code: the text is all there is
		x.Code, x.Message = fault.CodeOf(err), err.Error()
		return x
	}
	x.Code, x.Op, x.Message, x.Field = e.Code, e.Op, e.Detail, e.Field
	if x.Message == "" {
		x.Message = info.Name
	}
	x.Limit, x.Value, x.HasLimit = e.Limit, e.Value, e.HasLimit
	x.Details = e.Details
	if e.RetryAfter > 0 {
		ms := (e.RetryAfter + time.Millisecond - 1) / time.Millisecond
		x.RetryAfterMs = uint32(min(ms, math.MaxUint32))
	}
	// What wraps the coded error is kept as part of the operation.
	if prefix, ok := strings.CutSuffix(err.Error(), ": "+e.Error()); ok && prefix != "" {
		x.Op = joinColon(prefix, x.Op)
	}
	for cause := e.Err; cause != nil && len(x.Chain) < MaxChain; {
		item := ChainItem{Text: cause.Error()}
		var next error
		switch c := cause.(type) {
		case fault.Code:
			item.Code = c
		case *fault.Error:
			item.Code, next = c.Code, c.Err
			if next != nil {
				item.Text = strings.TrimSuffix(item.Text, ": "+next.Error())
			}
		default: // the text says all; a code further down still answers errors.Is
			if coded := fault.Find(c); coded != nil {
				item.Code = coded.Code
			}
		}
		x.Chain = append(x.Chain, item)
		cause = next
	}
	return x
}

func joinColon(a, b string) string {
	if b == "" {
		return a
	}
	return a + ": " + b
}

// Err returns x as an error for the receiver's callers: a *fault.Error with the
// sender's flags, whose causes answer errors.Is for their codes.
func (x *Error) Err() error {
	e := &fault.Error{
		Code: x.Code, Op: x.Op, Field: x.Field, Detail: x.Message,
		Limit: x.Limit, Value: x.Value, HasLimit: x.HasLimit,
		RetryAfter: time.Duration(x.RetryAfterMs) * time.Millisecond,
		Category:   x.Category, Flags: x.Bits, HasFlags: true,
		Details: slices.Clone(x.Details),
	}
	for i := len(x.Chain) - 1; i >= 0; i-- {
		item := x.Chain[i]
		cause := e.Err
		if item.Code == fault.None && cause == nil {
			e.Err = errors.New(item.Text)
			continue
		}
		e.Err = &fault.Error{Code: item.Code, Detail: item.Text, Err: cause}
	}
	return e
}
