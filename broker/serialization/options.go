package serialization

import (
	"errors"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// Options configures all codecs of a registry. DefaultOptions is the place to
// start from: the zero value has no valid limits.
type Options struct {
	Limits      Limits
	CBOR        CBOROptions
	JSON        JSONOptions
	MessagePack MessagePackOptions
}

// Limits bound what decoders accept. A decoded value takes at most about 100
// bytes of memory for each element beside its bytes.
type Limits struct {
	// Bytes bounds one encoded value or message.
	Bytes int
	// Depth bounds arrays, maps and tags within each other; 1 is a flat array.
	Depth int
	// Elements bounds the items of one value in all, keys of maps included.
	Elements int
	// Headers bounds the headers of one message.
	Headers int
}

// CBOROptions changes how CBOR is written. Every form is read.
type CBOROptions struct {
	// Canonical sorts the keys of maps and writes numbers in their shortest
	// form, so that equal values are equal bytes (core deterministic encoding,
	// RFC 8949 4.2.1). Whole messages are always written so.
	Canonical bool
	// Time is the form of a time.Time.
	Time TimeFormat
	// TimeTags marks times with tag 0 or 1, so that they stay times for readers
	// that have no Go type to tell. Without it no tag is written.
	TimeTags bool
}

// TimeFormat is how CBOR writes a time.Time.
type TimeFormat uint8

// The forms of a time.
const (
	TimeText   TimeFormat = iota // RFC 3339 with nanoseconds and zone
	TimeUnix                     // whole seconds since 1970
	TimeMicros                   // seconds since 1970 as a number with µs
	numTimeFormats
)

// JSONOptions changes how JSON is written.
type JSONOptions struct {
	// Indent is put before each line once for each level; empty is compact.
	Indent string
	// EscapeHTML writes <, > and & as escapes, for JSON within HTML.
	EscapeHTML bool
}

// MessagePackOptions changes how MessagePack is written. Every form is read.
type MessagePackOptions struct {
	// NamedFields writes structs as maps by name. Without it they are arrays
	// in the order of their fields: smaller and faster, but a reader needs the
	// same fields in the same order.
	NamedFields bool
	// WideInts writes integers in the width of their Go type instead of the
	// shortest form.
	WideInts bool
	// CompactFloats writes floats without a fraction as integers, and others
	// in 32 bits where nothing is lost.
	CompactFloats bool
	// SortKeys sorts the keys of maps.
	SortKeys bool
}

// DefaultOptions are compact forms in which equal values are equal bytes, which
// compress better, and limits of 8 MiB a value (a message of
// 1 MiB as JSON has at most 6 MiB), 32 levels, 131,072 elements and 64 headers.
func DefaultOptions() Options {
	return Options{
		Limits: Limits{
			Bytes:    8 << 20,
			Depth:    32,
			Elements: 128 << 10,
			Headers:  message.DefaultLimits().Headers,
		},
		CBOR:        CBOROptions{Canonical: true},
		MessagePack: MessagePackOptions{SortKeys: true},
	}
}

// Bounds of Limits. The least ones let a message with a header pass, and are
// those of the CBOR library.
const (
	minDepth    = 4
	minElements = 32
	maxBytes    = 1 << 30
	maxDepth    = 1000 // decoders recurse: keeps their stacks below a few hundred KiB
	maxElements = 1 << 26
	maxHeaders  = 1 << 16
)

// Validate reports every option that is out of its range, joined; nil if none.
func (o *Options) Validate() error {
	var errs []error
	check := func(field string, v, least, most int) {
		if v < least || v > most {
			errs = append(errs, fault.New(fault.Invalid, "serialization options").WithField(field).
				WithDetail("is %d, want %d to %d", v, least, most).WithCategory(fault.CategoryConfiguration))
		}
	}
	check("limits.bytes", o.Limits.Bytes, 1, maxBytes)
	check("limits.depth", o.Limits.Depth, minDepth, maxDepth)
	check("limits.elements", o.Limits.Elements, minElements, maxElements)
	check("limits.headers", o.Limits.Headers, 1, maxHeaders)
	if o.CBOR.Time >= numTimeFormats {
		errs = append(errs, fault.New(fault.Invalid, "serialization options").WithField("cbor.time").
			WithDetail("%d is no format", o.CBOR.Time).WithCategory(fault.CategoryConfiguration))
	}
	for _, c := range []byte(o.JSON.Indent) {
		if c != ' ' && c != '\t' {
			errs = append(errs, fault.New(fault.Invalid, "serialization options").WithField("json.indent").
				WithDetail("%q has more than blanks and tabs", o.JSON.Indent).WithCategory(fault.CategoryConfiguration))
			break
		}
	}
	return errors.Join(errs...)
}
