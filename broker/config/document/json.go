package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
)

func parseJSON(data []byte) (*Node, error) {
	p := jsonParser{lines: lines{data: data}, dec: json.NewDecoder(bytes.NewReader(data))}
	p.dec.UseNumber()
	root := new(Node)
	if err := p.value(root, 0); err != nil {
		return nil, err
	}
	if _, err := p.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &SyntaxError{p.line(), "something follows the end"}
	}
	return root, nil
}

type jsonParser struct {
	lines
	dec *json.Decoder
}

// line is that of the token read last. No token spans lines.
func (p *jsonParser) line() int { return p.of(int(p.dec.InputOffset())) }

func (p *jsonParser) token() (json.Token, error) {
	t, err := p.dec.Token()
	if err == nil {
		return t, nil
	}
	line := p.line()
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		line = lineAt(p.data, int(syntax.Offset))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, &SyntaxError{lineAt(p.data, len(bytes.TrimRight(p.data, " \t\r\n"))), "ends too early"}
	}
	return nil, &SyntaxError{line, strings.TrimPrefix(err.Error(), "json: ")}
}

func (p *jsonParser) value(n *Node, depth int) error {
	t, err := p.token()
	if err != nil {
		return err
	}
	n.Line = p.line()
	if depth > depthMax {
		return &SyntaxError{n.Line, errDeep}
	}
	switch t := t.(type) {
	case json.Delim:
		n.Kind = List
		if t == '{' {
			n.Kind = Table
		}
		for p.dec.More() {
			var f Field
			if n.Kind == Table {
				name, err := p.token()
				if err != nil {
					return err
				}
				f.Name, _ = name.(string) // the decoder takes nothing else
				f.Line = p.line()
			}
			if err := p.value(&f.Value, depth+1); err != nil {
				return err
			}
			if n.Kind == List {
				n.Items = append(n.Items, f.Value)
			} else if err := n.Add(f); err != nil {
				return err
			}
		}
		_, err := p.token()
		return err
	case string:
		n.Kind, n.Text = Text, t
	case json.Number:
		n.Kind, n.Text = Integer, string(t)
		if strings.ContainsAny(n.Text, ".eE") {
			n.Kind = Float
		}
	case bool:
		n.Kind, n.Text = Bool, "false"
		if t {
			n.Text = "true"
		}
	default: // null
	}
	return nil
}
