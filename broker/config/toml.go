package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// parseTOML lets the library judge the document (names given twice, tables
// reopened) by decoding it, and then walks its syntax tree, which is what knows
// the lines.
func parseTOML(data []byte) (*node, error) {
	// The library descends into nested arrays and inline tables without a bound
	// of its own.
	if at := tomlDepth(data); at >= 0 {
		return nil, &lineError{lineAt(data, at), errDeep}
	}
	var judged map[string]any
	if err := toml.Unmarshal(data, &judged); err != nil {
		return nil, tomlError(err, data)
	}
	p := tomlParser{lines: lines{data: data}}
	p.Reset(data)
	root := &node{kind: kindTable, line: 1}
	table := root
	for p.NextExpression() {
		e := p.Expression()
		var err error
		switch e.Kind {
		case unstable.Table:
			table, err = p.enter(root, e.Key())
		case unstable.ArrayTable:
			// No setting is a list of tables. It is entered as a table of one
			// name, so that it is reported as what it is: unknown.
			table, err = p.enterItem(root, e.Key())
		case unstable.KeyValue:
			err = p.keyValue(table, e, 0)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := p.Error(); err != nil {
		return nil, tomlError(err, data)
	}
	return root, nil
}

func tomlError(err error, data []byte) error {
	text := strings.TrimPrefix(err.Error(), "toml: ")
	var d *toml.DecodeError
	if errors.As(err, &d) {
		line, _ := d.Position()
		return &lineError{line, text}
	}
	return &lineError{lineAt(data, len(data)), text}
}

// tomlDepth returns the position of the first bracket that opens more than
// depthMax levels, counting those in strings and comments too; -1 if there is
// none.
func tomlDepth(data []byte) int {
	depth := 0
	for i, c := range data {
		switch c {
		case '[', '{':
			if depth++; depth > 4*depthMax {
				return i
			}
		case ']', '}':
			depth = max(0, depth-1)
		}
	}
	return -1
}

type tomlParser struct {
	unstable.Parser
	lines
}

func (p *tomlParser) line(n *unstable.Node) int { return p.of(int(n.Raw.Offset)) }

// enter walks down to the table of a header or a dotted key, making what is not
// there yet.
func (p *tomlParser) enter(at *node, key unstable.Iterator) (*node, error) {
	for depth := 0; key.Next(); depth++ {
		k := key.Node()
		if depth > depthMax {
			return nil, &lineError{p.line(k), errDeep}
		}
		f := at.find(string(k.Data))
		if f == nil {
			if err := at.add(field{name: string(k.Data), line: p.line(k), value: node{kind: kindTable, line: p.line(k)}}); err != nil {
				return nil, err
			}
			f = &at.fields[len(at.fields)-1]
		}
		if f.value.kind == kindList && len(f.value.items) > 0 {
			at = &f.value.items[len(f.value.items)-1] // the last of [[...]]
		} else {
			at = &f.value
		}
	}
	return at, nil
}

// enterItem adds a table to the list of a [[header]].
func (p *tomlParser) enterItem(root *node, key unstable.Iterator) (*node, error) {
	at, err := p.enter(root, key)
	if err != nil {
		return nil, err
	}
	item := node{kind: kindTable, line: at.line}
	// enter has made the list as an empty table, or entered its last item.
	if at.kind == kindTable && len(at.fields) == 0 {
		at.kind, at.items = kindList, []node{item}
		return &at.items[0], nil
	}
	return at, nil
}

func (p *tomlParser) keyValue(table *node, e *unstable.Node, depth int) error {
	if depth > depthMax {
		return &lineError{p.line(e), errDeep}
	}
	var path []*unstable.Node
	for key := e.Key(); key.Next(); {
		k := *key.Node()
		path = append(path, &k)
	}
	at := table
	for _, k := range path[:len(path)-1] {
		f := at.find(string(k.Data))
		if f == nil {
			if err := at.add(field{name: string(k.Data), line: p.line(k), value: node{kind: kindTable, line: p.line(k)}}); err != nil {
				return err
			}
			f = &at.fields[len(at.fields)-1]
		}
		at = &f.value
	}
	last := path[len(path)-1]
	f := field{name: string(last.Data), line: p.line(last)}
	f.value.line = f.line
	if err := p.value(&f.value, e.Value(), depth); err != nil {
		return err
	}
	return at.add(f)
}

// value reads v; n.line is set to that of its key, which stands where v itself
// has no position.
func (p *tomlParser) value(n *node, v *unstable.Node, depth int) error {
	if depth > depthMax {
		return &lineError{n.line, errDeep}
	}
	if v.Raw.Length > 0 {
		n.line = p.line(v)
	}
	n.text = string(v.Data)
	switch v.Kind {
	case unstable.String:
		n.kind = kindText
	case unstable.Integer:
		n.kind = kindInteger
	case unstable.Float:
		n.kind = kindFloat
	case unstable.Bool:
		n.kind = kindBool
	case unstable.Array:
		n.kind = kindList
		for items := v.Children(); items.Next(); {
			item := node{line: n.line}
			if err := p.value(&item, items.Node(), depth+1); err != nil {
				return err
			}
			n.items = append(n.items, item)
		}
	case unstable.InlineTable:
		n.kind, n.text = kindTable, ""
		for fields := v.Children(); fields.Next(); {
			if err := p.keyValue(n, fields.Node(), depth+1); err != nil {
				return err
			}
		}
	case unstable.LocalDate, unstable.LocalTime, unstable.LocalDateTime, unstable.DateTime:
		n.kind = kindOther
	default:
		return &lineError{n.line, fmt.Sprintf("a %v, which no setting takes", v.Kind)}
	}
	return nil
}
