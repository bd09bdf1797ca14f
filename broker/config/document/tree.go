// Package document reads the files that people write (settings of a broker,
// scenarios of a load) into a tree that knows its lines: YAML, JSON and TOML
// alike, within bounds. It also holds what such files have in common: sizes and
// durations with units, and the name that was probably meant by an unknown one.
//
// What a file may say is its reader's business. Nothing here is safe for
// concurrent use on the same Node.
package document

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
	return 0, fmt.Errorf("format %s: want yaml, json or toml", Quoted(s))
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
		return 0, fmt.Errorf("extension %s: want .yaml, .yml, .json or .toml", Quoted(ext))
	}
}

// Bounds of a file. They are far above what any needs, and keep a file that is
// none (a log, a core dump) from costing memory or stack.
const (
	FileBytesMax = 256 << 10
	depthMax     = 16
	FieldsMax    = 1000 // of one table
)

// Kind is what a Node is.
type Kind uint8

// The kinds.
const (
	None Kind = iota // null
	Table
	List
	Text
	Integer
	Float
	Bool
	Other // dates, and whatever else no setting takes
)

var kindNames = [...]string{"nothing", "a table", "a list", "a string", "a whole number", "a fraction", "true or false", "something else"}

// String names the kind in an error: "a table".
func (k Kind) String() string { return kindNames[k] }

// Node is a value of a file, of any format.
type Node struct {
	Kind   Kind
	Text   string // of a scalar: decoded if text, else as written
	Line   int
	Fields []Field // of a table, in the file's order
	Items  []Node  // of a list
}

// Field is a name in a table and what stands there.
type Field struct {
	Name  string
	Line  int
	Value Node
}

// Want is the error that a value of another type is expected.
func (n *Node) Want(what string) error {
	switch n.Kind {
	case Table, List, None:
		return fmt.Errorf("%s: want %s", n.Kind, what)
	case Text:
		return fmt.Errorf("the string %s: want %s", Quoted(n.Text), what)
	}
	return fmt.Errorf("%.60s: want %s", n.Text, what)
}

// Find returns a field of a table, nil if there is none.
func (n *Node) Find(name string) *Field {
	for i := range n.Fields {
		if n.Fields[i].Name == name {
			return &n.Fields[i]
		}
	}
	return nil
}

// Add puts a field into a table unless it has one of that name. The error is a
// *SyntaxError.
func (n *Node) Add(f Field) error {
	if old := n.Find(f.Name); old != nil {
		return &SyntaxError{f.Line, fmt.Sprintf("%s is there twice, first in line %d", Quoted(f.Name), old.Line)}
	}
	if len(n.Fields) >= FieldsMax {
		return &SyntaxError{f.Line, fmt.Sprintf("more than %d names in a table", FieldsMax)}
	}
	n.Fields = append(n.Fields, f)
	return nil
}

// SyntaxError is a mistake that ends the reading of a file.
type SyntaxError struct {
	Line int // from 1
	Text string
}

// Error is the text; who knows the file's name puts it and the line before.
func (e *SyntaxError) Error() string { return e.Text }

var errDeep = fmt.Sprintf("more than %d levels deep", depthMax)

// Parse reads a file in memory. The error is a *SyntaxError, or one about the
// file as a whole. An empty file is an empty table.
func Parse(f Format, data []byte) (*Node, error) {
	if len(data) > FileBytesMax {
		return nil, fmt.Errorf("is longer than %s, the most such a file may have", FormatSize(FileBytesMax))
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	for rest, at := data, 0; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		if r == utf8.RuneError && n == 1 {
			return nil, &SyntaxError{lineAt(data, at), "is not UTF-8"}
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
