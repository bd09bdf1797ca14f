package document

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
func parseTOML(data []byte) (*Node, error) {
	// The library descends into nested arrays and inline tables without a bound
	// of its own.
	if at := tomlDepth(data); at >= 0 {
		return nil, &SyntaxError{lineAt(data, at), errDeep}
	}
	var judged map[string]any
	if err := toml.Unmarshal(data, &judged); err != nil {
		return nil, tomlError(err, data)
	}
	p := tomlParser{lines: lines{data: data}}
	p.Reset(data)
	root := &Node{Kind: Table, Line: 1}
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
		return &SyntaxError{line, text}
	}
	return &SyntaxError{lineAt(data, len(data)), text}
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
func (p *tomlParser) enter(at *Node, key unstable.Iterator) (*Node, error) {
	for depth := 0; key.Next(); depth++ {
		k := key.Node()
		if depth > depthMax {
			return nil, &SyntaxError{p.line(k), errDeep}
		}
		f := at.Find(string(k.Data))
		if f == nil {
			if err := at.Add(Field{Name: string(k.Data), Line: p.line(k), Value: Node{Kind: Table, Line: p.line(k)}}); err != nil {
				return nil, err
			}
			f = &at.Fields[len(at.Fields)-1]
		}
		if f.Value.Kind == List && len(f.Value.Items) > 0 {
			at = &f.Value.Items[len(f.Value.Items)-1] // the last of [[...]]
		} else {
			at = &f.Value
		}
	}
	return at, nil
}

// enterItem adds a table to the list of a [[header]].
func (p *tomlParser) enterItem(root *Node, key unstable.Iterator) (*Node, error) {
	at, err := p.enter(root, key)
	if err != nil {
		return nil, err
	}
	item := Node{Kind: Table, Line: at.Line}
	// enter has made the list as an empty table, or entered its last item.
	if at.Kind == Table && len(at.Fields) == 0 {
		at.Kind, at.Items = List, []Node{item}
		return &at.Items[0], nil
	}
	return at, nil
}

func (p *tomlParser) keyValue(table *Node, e *unstable.Node, depth int) error {
	if depth > depthMax {
		return &SyntaxError{p.line(e), errDeep}
	}
	var path []*unstable.Node
	for key := e.Key(); key.Next(); {
		k := *key.Node()
		path = append(path, &k)
	}
	at := table
	for _, k := range path[:len(path)-1] {
		f := at.Find(string(k.Data))
		if f == nil {
			if err := at.Add(Field{Name: string(k.Data), Line: p.line(k), Value: Node{Kind: Table, Line: p.line(k)}}); err != nil {
				return err
			}
			f = &at.Fields[len(at.Fields)-1]
		}
		at = &f.Value
	}
	last := path[len(path)-1]
	f := Field{Name: string(last.Data), Line: p.line(last)}
	f.Value.Line = f.Line
	if err := p.value(&f.Value, e.Value(), depth); err != nil {
		return err
	}
	return at.Add(f)
}

// value reads v; n.Line is set to that of its key, which stands where v itself
// has no position.
func (p *tomlParser) value(n *Node, v *unstable.Node, depth int) error {
	if depth > depthMax {
		return &SyntaxError{n.Line, errDeep}
	}
	if v.Raw.Length > 0 {
		n.Line = p.line(v)
	}
	n.Text = string(v.Data)
	switch v.Kind {
	case unstable.String:
		n.Kind = Text
	case unstable.Integer:
		n.Kind = Integer
	case unstable.Float:
		n.Kind = Float
	case unstable.Bool:
		n.Kind = Bool
	case unstable.Array:
		n.Kind = List
		for items := v.Children(); items.Next(); {
			item := Node{Line: n.Line}
			if err := p.value(&item, items.Node(), depth+1); err != nil {
				return err
			}
			n.Items = append(n.Items, item)
		}
	case unstable.InlineTable:
		n.Kind, n.Text = Table, ""
		for fields := v.Children(); fields.Next(); {
			if err := p.keyValue(n, fields.Node(), depth+1); err != nil {
				return err
			}
		}
	case unstable.LocalDate, unstable.LocalTime, unstable.LocalDateTime, unstable.DateTime:
		n.Kind = Other
	default:
		return &SyntaxError{n.Line, fmt.Sprintf("a %v, which no setting takes", v.Kind)}
	}
	return nil
}
