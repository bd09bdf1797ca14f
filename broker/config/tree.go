package config

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// Format is the syntax of a file.
type Format uint8

// The formats.
const (
	YAML Format = iota + 1
	JSON
	TOML
)

var formatNames = map[Format]string{YAML: "yaml", JSON: "json", TOML: "toml"}

// String returns "yaml", "json" or "toml".
func (f Format) String() string { return formatNames[f] }

// ParseFormat reads a format's name.
func ParseFormat(s string) (Format, error) {
	for f, name := range formatNames {
		if name == s {
			return f, nil
		}
	}
	return 0, fmt.Errorf("format %s: want yaml, json or toml", quoted(s))
}

// FormatOf tells the format by the extension: .yaml, .yml, .json or .toml.
func FormatOf(file string) (Format, error) {
	switch ext := strings.ToLower(filepath.Ext(file)); ext {
	case ".yaml", ".yml":
		return YAML, nil
	case ".json":
		return JSON, nil
	case ".toml":
		return TOML, nil
	default:
		return 0, fmt.Errorf("extension %s: want .yaml, .yml, .json or .toml", quoted(ext))
	}
}

// Bounds of a file. They are far above what any table needs, and keep a file
// that is none (a log, a core dump) from costing memory or stack.
const (
	fileBytesMax = 256 << 10
	depthMax     = 16
	fieldsMax    = 1000 // of one table
)

type kind uint8

const (
	kindNone kind = iota // null
	kindTable
	kindList
	kindText
	kindInteger
	kindFloat
	kindBool
	kindOther // dates, and whatever else no setting takes
)

var kindNames = [...]string{"nothing", "a table", "a list", "a string", "a whole number", "a fraction", "true or false", "something else"}

// node is a value of a file, of any format.
type node struct {
	kind   kind
	text   string // of a scalar: decoded if text, else as written
	line   int
	fields []field // of a table, in the file's order
	items  []node  // of a list
}

type field struct {
	name  string
	line  int
	value node
}

// want is the error that a value of another type is expected.
func (n *node) want(what string) error {
	switch n.kind {
	case kindTable, kindList, kindNone:
		return fmt.Errorf("%s: want %s", kindNames[n.kind], what)
	case kindText:
		return fmt.Errorf("the string %s: want %s", quoted(n.text), what)
	}
	return fmt.Errorf("%.60s: want %s", n.text, what)
}

// find returns a field of a table, nil if there is none.
func (n *node) find(name string) *field {
	for i := range n.fields {
		if n.fields[i].name == name {
			return &n.fields[i]
		}
	}
	return nil
}

// add puts a field into a table unless it has one of that name.
func (n *node) add(f field) error {
	if old := n.find(f.name); old != nil {
		return &lineError{f.line, fmt.Sprintf("%s is there twice, first in line %d", quoted(f.name), old.line)}
	}
	if len(n.fields) >= fieldsMax {
		return &lineError{f.line, fmt.Sprintf("more than %d names in a table", fieldsMax)}
	}
	n.fields = append(n.fields, f)
	return nil
}

// lineError is a mistake of syntax.
type lineError struct {
	line int
	text string
}

func (e *lineError) Error() string { return e.text }

var errDeep = fmt.Sprintf("more than %d levels deep", depthMax)

// parse reads a file. The error is a lineError or several, joined.
func parse(f Format, data []byte) (*node, error) {
	if len(data) > fileBytesMax {
		return nil, fmt.Errorf("is longer than %s, the most a configuration may have", FormatSize(fileBytesMax))
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	for rest, at := data, 0; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		if r == utf8.RuneError && n == 1 {
			return nil, &lineError{lineAt(data, at), "is not UTF-8"}
		}
		rest, at = rest[n:], at+n
	}
	switch f {
	case YAML:
		return parseYAML(data)
	case JSON:
		return parseJSON(data)
	case TOML:
		return parseTOML(data)
	}
	return nil, errors.New("unknown format")
}

// lines tells the lines of positions. It is quick if they mostly grow.
type lines struct {
	data     []byte
	at, line int // the position asked for last, and the newlines before it
}

func (l *lines) of(at int) int {
	if at < l.at {
		l.at, l.line = 0, 0
	}
	at = min(at, len(l.data))
	l.line += bytes.Count(l.data[l.at:at], []byte{'\n'})
	l.at = at
	return l.line + 1
}

// lineAt is the line, from 1, of a position.
func lineAt(data []byte, at int) int {
	return 1 + bytes.Count(data[:min(max(at, 0), len(data))], []byte{'\n'})
}
