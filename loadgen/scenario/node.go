package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Bounds of a file: far above what a scenario needs.
const (
	fileBytesMax = 256 << 10
	depthMax     = 8
	itemsMax     = 1000 // of a table or list
)

type kind uint8

const (
	kindNone kind = iota
	kindTable
	kindList
	kindText
	kindNumber
	kindBool
)

var kindNames = [...]string{"nothing", "a table", "a list", "a string", "a number", "true or false"}

// node is a value of a file, YAML or JSON.
type node struct {
	kind   kind
	text   string // of a scalar
	line   int
	fields []field // of a table, in the file's order
	items  []node  // of a list
}

type field struct {
	name  string
	line  int
	value node
}

// syntaxError is a mistake that ends the reading of a file.
type syntaxError struct {
	line int
	text string
}

func (e *syntaxError) Error() string { return e.text }

func (n *node) add(f field) error {
	for i := range n.fields {
		if n.fields[i].name == f.name {
			return &syntaxError{f.line, fmt.Sprintf("%.40q is there twice, first in line %d", f.name, n.fields[i].line)}
		}
	}
	if len(n.fields) >= itemsMax {
		return &syntaxError{f.line, fmt.Sprintf("more than %d names in a table", itemsMax)}
	}
	n.fields = append(n.fields, f)
	return nil
}

// parse reads a file, JSON if its name ends so, else YAML. The error is a
// *syntaxError.
func parse(file string, data []byte) (*node, error) {
	if len(data) > fileBytesMax {
		return nil, &syntaxError{1, fmt.Sprintf("is longer than %d KiB, the most a scenario may have", fileBytesMax>>10)}
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if !utf8.Valid(data) {
		at := 0
		for {
			r, n := utf8.DecodeRune(data[at:])
			if r == utf8.RuneError && n == 1 {
				return nil, &syntaxError{lineOf(data, at), "is not UTF-8"}
			}
			at += n
		}
	}
	if strings.EqualFold(filepath.Ext(file), ".json") {
		return parseJSON(data)
	}
	return parseYAML(data)
}

func lineOf(data []byte, at int) int { return 1 + bytes.Count(data[:min(at, len(data))], []byte{'\n'}) }

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

// countedFrom0 are the complaints of the YAML library's parser, whose lines it
// counts from 0; those of its scanner count from 1.
var countedFrom0 = []string{
	"did not find expected <document start>", "did not find expected node content", "did not find expected key",
	"did not find expected '-' indicator", "did not find expected ',' or ']'", "did not find expected ',' or '}'",
}

func yamlError(err error) error {
	text := err.Error()
	m := yamlLine.FindStringSubmatch(text)
	if m == nil {
		return &syntaxError{1, strings.TrimPrefix(text, "yaml: ")}
	}
	line, _ := strconv.Atoi(m[1]) // digits
	text = text[len(m[0]):]
	if slices.Contains(countedFrom0, text) {
		line++
	}
	return &syntaxError{line, text}
}

func parseYAML(data []byte) (*node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	root := &node{kind: kindTable, line: 1}
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return root, nil
	case err != nil:
		return nil, yamlError(err)
	}
	if len(doc.Content) > 0 {
		if err := fromYAML(doc.Content[0], root, 0); err != nil {
			return nil, err
		}
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		return nil, &syntaxError{second.Line, "a second document; a file holds one scenario"}
	case !errors.Is(err, io.EOF):
		return nil, yamlError(err)
	}
	return root, nil
}

func fromYAML(y *yaml.Node, n *node, depth int) error {
	if depth > depthMax {
		return &syntaxError{y.Line, fmt.Sprintf("more than %d levels deep", depthMax)}
	}
	n.line = y.Line
	switch y.Kind {
	case yaml.MappingNode:
		n.kind = kindTable
		for i := 0; i+1 < len(y.Content); i += 2 {
			key := y.Content[i]
			if key.Kind != yaml.ScalarNode {
				return &syntaxError{key.Line, "a key must be a name"}
			}
			f := field{name: key.Value, line: key.Line}
			if err := fromYAML(y.Content[i+1], &f.value, depth+1); err != nil {
				return err
			}
			if err := n.add(f); err != nil {
				return err
			}
		}
	case yaml.SequenceNode:
		n.kind = kindList
		if len(y.Content) > itemsMax {
			return &syntaxError{y.Line, fmt.Sprintf("more than %d items in a list", itemsMax)}
		}
		n.items = make([]node, len(y.Content))
		for i, item := range y.Content {
			if err := fromYAML(item, &n.items[i], depth+1); err != nil {
				return err
			}
		}
	case yaml.ScalarNode:
		n.text = y.Value
		switch y.ShortTag() {
		case "!!null":
			n.kind = kindNone
		case "!!int", "!!float":
			n.kind = kindNumber
		case "!!bool":
			n.kind, n.text = kindBool, strings.ToLower(y.Value)
		default:
			n.kind = kindText
		}
	default:
		return &syntaxError{y.Line, "anchors and aliases are not supported"}
	}
	return nil
}

func parseJSON(data []byte) (*node, error) {
	p := &jsonParser{data: data, dec: json.NewDecoder(bytes.NewReader(data))}
	p.dec.UseNumber()
	root := &node{}
	if err := p.value(root, 0); err != nil {
		return nil, p.failed(err)
	}
	if _, err := p.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &syntaxError{p.line(), "something follows the scenario"}
	}
	return root, nil
}

type jsonParser struct {
	data []byte
	dec  *json.Decoder
}

// line is that of the last token's end.
func (p *jsonParser) line() int { return lineOf(p.data, int(p.dec.InputOffset())) }

func (p *jsonParser) failed(err error) error {
	if s, ok := errors.AsType[*syntaxError](err); ok {
		return s
	}
	at := p.line()
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = lineOf(p.data, int(s.Offset)-1)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return &syntaxError{at, err.Error()}
}

func (p *jsonParser) value(n *node, depth int) error {
	t, err := p.dec.Token()
	if err != nil {
		return err
	}
	n.line = p.line()
	if depth > depthMax {
		return &syntaxError{n.line, fmt.Sprintf("more than %d levels deep", depthMax)}
	}
	switch t := t.(type) {
	case json.Delim:
		if t == '{' {
			return p.table(n, depth)
		}
		n.kind = kindList
		for p.dec.More() {
			if len(n.items) == itemsMax {
				return &syntaxError{n.line, fmt.Sprintf("more than %d items in a list", itemsMax)}
			}
			n.items = append(n.items, node{})
			if err := p.value(&n.items[len(n.items)-1], depth+1); err != nil {
				return err
			}
		}
		_, err = p.dec.Token()
		return err
	case string:
		n.kind, n.text = kindText, t
	case json.Number:
		n.kind, n.text = kindNumber, string(t)
	case bool:
		n.kind, n.text = kindBool, strconv.FormatBool(t)
	}
	return nil
}

func (p *jsonParser) table(n *node, depth int) error {
	n.kind = kindTable
	for p.dec.More() {
		key, err := p.dec.Token()
		if err != nil {
			return err
		}
		f := field{name: fmt.Sprint(key), line: p.line()}
		if err := p.value(&f.value, depth+1); err != nil {
			return err
		}
		if err := n.add(f); err != nil {
			return err
		}
	}
	_, err := p.dec.Token()
	return err
}
