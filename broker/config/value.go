package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portask/portask/broker/config/document"
)

// Value is a field that a setting is read into. The constructors of this
// package make them; none keeps anything of its own, so a Value always shows
// what its field holds.
type Value interface {
	// String is what the field holds, written so that it can be read again; the
	// items of a list are separated by commas.
	String() string
	// Type is one word for what the setting takes: string, bool, count, size,
	// duration, word or list.
	Type() string
	// Limits says what is accepted beyond the type: "1 to 64, or auto". Empty if
	// everything is.
	Limits() string

	// setText sets the field from a variable or a flag. After an error the field
	// is unchanged.
	setText(text string) error
	// setNode is setText for a value of a file, whose type must be right.
	setNode(n *document.Node) error
	// check holds the present value against the limits.
	check() error
	// node is what the field holds, as a file would say it.
	node() document.Node
	// schema is the JSON Schema of what a file may say.
	schema() map[string]any
}

// --- text

type text struct {
	p     *string
	valid func(string) error
	means string
}

// String is a setting of any text that valid accepts (nil accepts all); means
// describes that in the reference.
func String(p *string, means string, valid func(string) error) Value { return text{p, valid, means} }

func (v text) String() string      { return *v.p }
func (v text) Type() string        { return "string" }
func (v text) Limits() string      { return v.means }
func (v text) node() document.Node { return document.Node{Kind: document.Text, Text: *v.p} }
func (v text) check() error        { return v.accept(*v.p) }

func (v text) accept(s string) error {
	if v.valid == nil {
		return nil
	}
	return v.valid(s)
}

func (v text) setText(s string) error {
	if err := v.accept(s); err != nil {
		return err
	}
	*v.p = s
	return nil
}

func (v text) setNode(n *document.Node) error {
	if n.Kind != document.Text {
		return n.Want("a string in quotes")
	}
	return v.setText(n.Text)
}

func (v text) schema() map[string]any { return map[string]any{"type": "string"} }

// --- boolean

type boolean struct{ p *bool }

// Bool is a setting of true or false.
func Bool(p *bool) Value { return boolean{p} }

func (v boolean) String() string      { return strconv.FormatBool(*v.p) }
func (v boolean) Type() string        { return "bool" }
func (v boolean) Limits() string      { return "" }
func (v boolean) node() document.Node { return document.Node{Kind: document.Bool, Text: v.String()} }
func (v boolean) check() error        { return nil }

func (v boolean) setText(s string) error {
	switch s {
	case "true", "false":
		*v.p = s == "true"
		return nil
	}
	return fmt.Errorf("%s: want true or false", document.Quoted(s))
}

func (v boolean) setNode(n *document.Node) error {
	if n.Kind != document.Bool {
		return n.Want("true or false")
	}
	return v.setText(n.Text)
}

func (v boolean) schema() map[string]any { return map[string]any{"type": "boolean"} }

// --- numbers

type unit uint8

const (
	unitCount unit = iota
	unitBytes
	unitNano  // a time.Duration
	unitMilli // milliseconds in an integer
)

// Number is a setting of a count, a size or a duration.
type Number struct {
	unit     unit
	get      func() int64
	put      func(int64)
	min, max int64
	words    []Word[int64]
}

// Word is a name for a value.
type Word[T any] struct {
	Text  string
	Value T
}

// Is makes a Word.
func Is[T any](text string, v T) Word[T] { return Word[T]{text, v} }

type integer interface {
	~int | ~int32 | ~int64 | ~uint32 | ~uint64
}

func number[T integer](u unit, p *T, least, most int64) *Number {
	for int64(T(most)) != most || T(most) < 0 { // an int of 32 bits
		most >>= 1
	}
	return &Number{unit: u, get: func() int64 { return int64(*p) }, put: func(n int64) { *p = T(n) }, min: least, max: most}
}

// Count is a setting of a whole number from least to most.
func Count[T integer](p *T, least, most int64) *Number { return number(unitCount, p, least, most) }

// Size is a setting of a number of bytes from least to most.
func Size[T integer](p *T, least, most int64) *Number { return number(unitBytes, p, least, most) }

// Duration is a setting of a time span from least to most.
func Duration(p *time.Duration, least, most time.Duration) *Number {
	return number(unitNano, p, int64(least), int64(most))
}

// Millis is Duration for a field that counts milliseconds.
func Millis[T integer](p *T, least, most time.Duration) *Number {
	return number(unitMilli, p, least.Milliseconds(), most.Milliseconds())
}

// Or accepts a word for a value that need not be within the limits.
func (v *Number) Or(word string, value int64) *Number {
	v.words = append(v.words, Word[int64]{word, value})
	return v
}

func (v *Number) String() string { return v.format(v.get()) }

func (v *Number) format(n int64) string {
	for _, w := range v.words {
		if w.Value == n {
			return w.Text
		}
	}
	switch v.unit {
	case unitBytes:
		return document.FormatSize(n)
	case unitNano:
		return document.FormatDuration(time.Duration(n))
	case unitMilli:
		return document.FormatDuration(time.Duration(n) * time.Millisecond)
	}
	return strconv.FormatInt(n, 10)
}

// Type implements Value.
func (v *Number) Type() string {
	switch v.unit {
	case unitBytes:
		return "size"
	case unitNano, unitMilli:
		return "duration"
	}
	return "count"
}

// Limits implements Value.
func (v *Number) Limits() string {
	s := v.format(v.min) + " to " + v.format(v.max)
	for _, w := range v.words {
		s += ", or " + w.Text
	}
	return s
}

func (v *Number) check() error { return v.within(v.get(), v.String()) }

// within holds n, written as s, against the limits.
func (v *Number) within(n int64, s string) error {
	switch {
	case slices.ContainsFunc(v.words, func(w Word[int64]) bool { return w.Value == n }):
		return nil
	case n < v.min:
		return fmt.Errorf("%.60s is less than %s, the least allowed", s, v.format(v.min))
	case n > v.max:
		return fmt.Errorf("%.60s is more than %s, the most allowed", s, v.format(v.max))
	}
	return nil
}

func (v *Number) setText(s string) error {
	for _, w := range v.words {
		if w.Text == s {
			v.put(w.Value)
			return nil
		}
	}
	n, err := v.parse(s)
	if err != nil {
		return err
	}
	return v.putWithin(n, s)
}

func (v *Number) putWithin(n int64, s string) error {
	if err := v.within(n, s); err != nil {
		return err
	}
	v.put(n)
	return nil
}

func (v *Number) parse(s string) (int64, error) {
	switch v.unit {
	case unitBytes:
		n, err := document.ParseSize(s)
		if err != nil {
			return 0, fmt.Errorf("%s: want %s", document.Quoted(s), v.wanted())
		}
		return n, nil
	case unitNano, unitMilli:
		d, err := document.ParseDuration(s)
		if err != nil {
			return 0, fmt.Errorf("%s: want %s", document.Quoted(s), v.wanted())
		}
		if v.unit == unitNano {
			return int64(d), nil
		}
		if d%time.Millisecond != 0 {
			return 0, fmt.Errorf("%s: want whole milliseconds", document.Quoted(s))
		}
		return d.Milliseconds(), nil
	}
	n, err := document.ParseCount(s)
	if err != nil {
		return 0, fmt.Errorf("%s: want %s", document.Quoted(s), v.wanted())
	}
	return n, nil
}

// wanted describes the values in an error.
func (v *Number) wanted() string {
	var s string
	switch v.unit {
	case unitBytes:
		s = "a size such as 64MiB"
	case unitNano, unitMilli:
		s = "a duration with its unit, such as 500ms, 30s or 7d"
	default:
		s = "a whole number in decimal digits"
	}
	for _, w := range v.words {
		s += ", or " + w.Text
	}
	return s
}

func (v *Number) setNode(n *document.Node) error {
	switch {
	case n.Kind == document.Text && v.unit == unitCount:
		if !slices.ContainsFunc(v.words, func(w Word[int64]) bool { return w.Text == n.Text }) {
			return n.Want(v.wanted())
		}
	case n.Kind == document.Integer && (v.unit == unitCount || v.unit == unitBytes):
		i, err := document.ParseCount(n.Text)
		if err != nil {
			return n.Want(v.wanted())
		}
		return v.putWithin(i, n.Text)
	case n.Kind != document.Text:
		return n.Want(v.wanted())
	}
	return v.setText(n.Text)
}

func (v *Number) node() document.Node {
	s := v.String()
	if v.unit == unitCount {
		if _, err := document.ParseCount(s); err == nil {
			return document.Node{Kind: document.Integer, Text: s}
		}
	}
	return document.Node{Kind: document.Text, Text: s}
}

func (v *Number) schema() map[string]any {
	var any1 []any
	switch v.unit {
	case unitBytes:
		any1 = append(any1, map[string]any{"type": "integer", "minimum": v.min, "maximum": v.max},
			map[string]any{"type": "string", "pattern": document.SizePattern})
	case unitNano, unitMilli:
		any1 = append(any1, map[string]any{"type": "string", "pattern": document.DurationPattern})
	default:
		any1 = append(any1, map[string]any{"type": "integer", "minimum": v.min, "maximum": v.max})
	}
	for _, w := range v.words {
		any1 = append(any1, map[string]any{"const": w.Text})
	}
	if len(any1) == 1 {
		return any1[0].(map[string]any)
	}
	return map[string]any{"anyOf": any1}
}

// --- words

type oneOf[T comparable] struct {
	p     *T
	words []Word[T]
}

// OneOf is a setting of one of a few words.
func OneOf[T comparable](p *T, words ...Word[T]) Value { return oneOf[T]{p, words} }

// Words makes the words of a string field, each standing for itself.
func Words(texts ...string) []Word[string] {
	words := make([]Word[string], len(texts))
	for i, t := range texts {
		words[i] = Is(t, t)
	}
	return words
}

func (v oneOf[T]) String() string {
	if i := slices.IndexFunc(v.words, func(w Word[T]) bool { return w.Value == *v.p }); i >= 0 {
		return v.words[i].Text
	}
	return fmt.Sprint(*v.p)
}

func (v oneOf[T]) Type() string        { return "word" }
func (v oneOf[T]) Limits() string      { return enumerate(texts(v.words)) }
func (v oneOf[T]) node() document.Node { return document.Node{Kind: document.Text, Text: v.String()} }

func (v oneOf[T]) check() error {
	if !slices.ContainsFunc(v.words, func(w Word[T]) bool { return w.Value == *v.p }) {
		return fmt.Errorf("%v: want %s", *v.p, v.Limits())
	}
	return nil
}

func (v oneOf[T]) setText(s string) error {
	i := slices.IndexFunc(v.words, func(w Word[T]) bool { return w.Text == s })
	if i < 0 {
		return fmt.Errorf("%s: want %s", document.Quoted(s), v.Limits())
	}
	*v.p = v.words[i].Value
	return nil
}

func (v oneOf[T]) setNode(n *document.Node) error {
	if n.Kind != document.Text {
		return n.Want(v.Limits())
	}
	return v.setText(n.Text)
}

func (v oneOf[T]) schema() map[string]any { return map[string]any{"enum": texts(v.words)} }

// --- lists

type several[T comparable] struct {
	p     *[]T
	words []Word[T]
}

// Several is a setting of a list of at least one and at most all of the words,
// each at most once.
func Several[T comparable](p *[]T, words ...Word[T]) Value { return several[T]{p, words} }

func (v several[T]) names() []string {
	out := make([]string, len(*v.p))
	for i, x := range *v.p {
		out[i] = oneOf[T]{&x, v.words}.String()
	}
	return out
}

func (v several[T]) String() string { return strings.Join(v.names(), ",") }
func (v several[T]) Type() string   { return "list" }
func (v several[T]) Limits() string { return "of " + strings.Join(texts(v.words), ", ") }

func (v several[T]) node() document.Node {
	n := document.Node{Kind: document.List}
	for _, name := range v.names() {
		n.Items = append(n.Items, document.Node{Kind: document.Text, Text: name})
	}
	return n
}

func (v several[T]) check() error {
	_, err := v.parse(v.names())
	return err
}

func (v several[T]) parse(names []string) ([]T, error) {
	if len(names) == 0 {
		return nil, errors.New("an empty list: want at least one of " + strings.Join(texts(v.words), ", "))
	}
	var out []T
	var errs []error
	for _, s := range names {
		var x T
		if err := (oneOf[T]{&x, v.words}).setText(s); err != nil {
			errs = append(errs, err)
		} else if slices.Contains(out, x) {
			errs = append(errs, fmt.Errorf("%s is there twice", document.Quoted(s)))
		} else {
			out = append(out, x)
		}
		if len(errs) > len(v.words) {
			break // a hostile list; enough is said
		}
	}
	return out, errors.Join(errs...)
}

func (v several[T]) set(names []string) error {
	out, err := v.parse(names)
	if err == nil {
		*v.p = out
	}
	return err
}

func (v several[T]) setText(s string) error {
	var names []string
	for name := range strings.SplitSeq(s, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return v.set(names)
}

func (v several[T]) setNode(n *document.Node) error {
	if n.Kind != document.List {
		return n.Want("a list " + v.Limits())
	}
	names := make([]string, len(n.Items))
	for i := range n.Items {
		if n.Items[i].Kind != document.Text {
			return n.Items[i].Want("an item " + v.Limits())
		}
		names[i] = n.Items[i].Text
	}
	return v.set(names)
}

func (v several[T]) schema() map[string]any {
	return map[string]any{"type": "array", "items": map[string]any{"enum": texts(v.words)}, "minItems": 1, "uniqueItems": true}
}

// --- helpers

func texts[T any](words []Word[T]) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = w.Text
	}
	return out
}

// enumerate returns "a, b or c".
func enumerate(s []string) string {
	if len(s) < 2 {
		return strings.Join(s, "")
	}
	return strings.Join(s[:len(s)-1], ", ") + " or " + s[len(s)-1]
}
