package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/portask/portask/broker/config/document"
	"github.com/portask/portask/broker/message"
)

// record is a message with the place it was consumed from.
type record struct {
	Topic     string
	Partition uint32
	Message   *message.Message
}

// verb appends one property of a record.
type verb func(dst []byte, r *record) []byte

// format is a compiled format string: text and verbs in turn.
type format []verb

const formatHelp = `  %t  topic            %k  key               %T  time (RFC 3339, UTC)
  %p  partition        %v  value             %u  time in microseconds since 1970
  %o  offset           %s  size of the value %h  headers as name=value, comma-separated
  %i  message id       %a  age by its time   %H{NAME}  value of the first header of that name
  %x  trace id         %c  content type      %%  a percent sign
  \n \t \r \0 \\ \xHH  bytes
  %k, %v and %h take {hex} or {base64}: %v{hex}
`

// parseFormat compiles s; an unknown verb, modifier or escape is an error that
// names it.
func parseFormat(s string) (format, error) {
	var f format
	var text []byte
	flush := func() {
		if len(text) > 0 {
			lit := string(text)
			f = append(f, func(dst []byte, _ *record) []byte { return append(dst, lit...) })
			text = nil
		}
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '\\':
			b, n, err := parseEscape(s[i:])
			if err != nil {
				return nil, err
			}
			text = append(text, b)
			i += n - 1
		case '%':
			i++
			if i == len(s) {
				return nil, usagef("format: a %% at the end; write %%%% for a percent sign")
			}
			if s[i] == '%' {
				text = append(text, '%')
				continue
			}
			modifier := ""
			name := s[i]
			if i+1 < len(s) && s[i+1] == '{' {
				end := strings.IndexByte(s[i:], '}')
				if end < 0 {
					return nil, usagef("format: %%%c{ has no closing brace", name)
				}
				modifier = s[i+2 : i+end]
				i += end
			}
			v, err := parseVerb(name, modifier)
			if err != nil {
				return nil, err
			}
			flush()
			f = append(f, v)
		default:
			text = append(text, c)
		}
	}
	flush()
	return f, nil
}

// parseEscape reads the escape at the beginning of s and returns its byte and
// its length.
func parseEscape(s string) (b byte, n int, err error) {
	if len(s) < 2 {
		return 0, 0, usagef(`format: a \ at the end; write \\ for a backslash`)
	}
	switch s[1] {
	case 'n':
		return '\n', 2, nil
	case 't':
		return '\t', 2, nil
	case 'r':
		return '\r', 2, nil
	case '0':
		return 0, 2, nil
	case '\\':
		return '\\', 2, nil
	case 'x':
		if len(s) < 4 {
			return 0, 0, usagef(`format: \x needs two hexadecimal digits`)
		}
		v, err := strconv.ParseUint(s[2:4], 16, 8)
		if err != nil {
			return 0, 0, usagef(`format: \x needs two hexadecimal digits, not %q`, s[2:4])
		}
		return byte(v), 4, nil
	}
	return 0, 0, usagef(`format: unknown escape \%c`, s[1])
}

func parseVerb(name byte, modifier string) (verb, error) {
	if name == 'H' {
		if modifier == "" {
			return nil, usagef("format: %%H wants the name of a header: %%H{trace}")
		}
		return func(dst []byte, r *record) []byte {
			v, _ := r.Message.Headers.Bytes(modifier) // nothing if there is none
			return append(dst, v...)
		}, nil
	}
	encode, err := parseModifier(modifier)
	if err != nil {
		return nil, err
	}
	if modifier != "" && !strings.ContainsRune("kvh", rune(name)) {
		return nil, usagef("format: %%%c takes no {%s}", name, modifier)
	}
	switch name {
	case 't':
		return func(dst []byte, r *record) []byte { return append(dst, r.Topic...) }, nil
	case 'p':
		return func(dst []byte, r *record) []byte { return strconv.AppendUint(dst, uint64(r.Partition), 10) }, nil
	case 'o':
		return func(dst []byte, r *record) []byte { return strconv.AppendInt(dst, int64(r.Message.Offset), 10) }, nil
	case 'k':
		return func(dst []byte, r *record) []byte { return encode(dst, r.Message.Key) }, nil
	case 'v':
		return func(dst []byte, r *record) []byte { return encode(dst, r.Message.Value) }, nil
	case 's':
		return func(dst []byte, r *record) []byte { return strconv.AppendInt(dst, int64(len(r.Message.Value)), 10) }, nil
	case 'i':
		return func(dst []byte, r *record) []byte { return append(dst, idText(r.Message)...) }, nil
	case 'c':
		return func(dst []byte, r *record) []byte { return append(dst, r.Message.Headers.ContentType()...) }, nil
	case 'x':
		return func(dst []byte, r *record) []byte {
			trace, err := r.Message.Headers.Trace()
			if err != nil {
				return dst // there is none, or one that is to be ignored
			}
			return hex.AppendEncode(dst, trace.ID[:])
		}, nil
	case 'a':
		return func(dst []byte, r *record) []byte {
			return append(dst, r.Message.Age(time.Now()).Round(time.Microsecond).String()...)
		}, nil
	case 'T':
		return func(dst []byte, r *record) []byte { return timeOf(r.Message).AppendFormat(dst, timeLayout) }, nil
	case 'u':
		return func(dst []byte, r *record) []byte { return strconv.AppendInt(dst, r.Message.Timestamp, 10) }, nil
	case 'h':
		return func(dst []byte, r *record) []byte {
			for i, h := range r.Message.Headers {
				if i > 0 {
					dst = append(dst, ',')
				}
				dst = append(dst, h.Key...)
				dst = append(dst, '=')
				dst = encode(dst, h.Value)
			}
			return dst
		}, nil
	}
	return nil, usagef("format: unknown verb %%%c", name)
}

func parseModifier(s string) (func(dst, src []byte) []byte, error) {
	switch s {
	case "":
		return func(dst, src []byte) []byte { return append(dst, src...) }, nil
	case "hex":
		return hex.AppendEncode, nil
	case "base64":
		return base64.StdEncoding.AppendEncode, nil
	}
	return nil, usagef("format: unknown modifier {%s}: want {hex} or {base64}", s)
}

// timeLayout is RFC 3339 with microseconds, the resolution of a timestamp.
const timeLayout = "2006-01-02T15:04:05.000000Z07:00"

func timeOf(m *message.Message) time.Time { return m.Time().UTC() }

// idText is the message's id, empty if it has none.
func idText(m *message.Message) string {
	if m.ID.IsZero() {
		return ""
	}
	return m.ID.String()
}

func (f format) append(dst []byte, r *record) []byte {
	for _, v := range f {
		dst = v(dst, r)
	}
	return dst
}

// parseSize reads a byte size as configurations write it.
func parseSize(s string) (int64, error) {
	n, err := document.ParseSize(s)
	if err != nil {
		return 0, fmt.Errorf("size %q: want a number with B, KiB, MiB, GiB or TiB", s)
	}
	if n > 1<<62 {
		return 0, fmt.Errorf("size %q: too large", s)
	}
	return n, nil
}

// sizeText is a byte count for people: 512 B, 3.2 MiB.
func sizeText(n int64) string {
	if n < 0 {
		return "unlimited"
	}
	const units = "KMGTPE"
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f := float64(n)
	unit := -1
	for f >= 1024 {
		f /= 1024
		unit++
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + " " + units[unit:unit+1] + "iB"
}

// sizeFlag is a pflag.Value for byte sizes.
type sizeFlag struct {
	n *int64
	// unlimited: the word, or -1, is accepted and stored as -1.
	unlimited bool
}

func (f sizeFlag) String() string {
	if f.n == nil {
		return ""
	}
	return sizeText(*f.n)
}

func (f sizeFlag) Set(s string) error {
	if f.unlimited && (s == "unlimited" || s == "-1") {
		*f.n = -1
		return nil
	}
	n, err := parseSize(s)
	if err != nil {
		return err
	}
	*f.n = n
	return nil
}

func (f sizeFlag) Type() string { return "size" }
