package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
)

func parseJSON(data []byte) (*node, error) {
	p := jsonParser{lines: lines{data: data}, dec: json.NewDecoder(bytes.NewReader(data))}
	p.dec.UseNumber()
	root := new(node)
	if err := p.value(root, 0); err != nil {
		return nil, err
	}
	if _, err := p.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &lineError{p.line(), "something follows the configuration"}
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
		return nil, &lineError{lineAt(p.data, len(bytes.TrimRight(p.data, " \t\r\n"))), "ends too early"}
	}
	return nil, &lineError{line, strings.TrimPrefix(err.Error(), "json: ")}
}

func (p *jsonParser) value(n *node, depth int) error {
	t, err := p.token()
	if err != nil {
		return err
	}
	n.line = p.line()
	if depth > depthMax {
		return &lineError{n.line, errDeep}
	}
	switch t := t.(type) {
	case json.Delim:
		n.kind = kindList
		if t == '{' {
			n.kind = kindTable
		}
		for p.dec.More() {
			var f field
			if n.kind == kindTable {
				name, err := p.token()
				if err != nil {
					return err
				}
				f.name, _ = name.(string) // the decoder takes nothing else
				f.line = p.line()
			}
			if err := p.value(&f.value, depth+1); err != nil {
				return err
			}
			if n.kind == kindList {
				n.items = append(n.items, f.value)
			} else if err := n.add(f); err != nil {
				return err
			}
		}
		_, err := p.token()
		return err
	case string:
		n.kind, n.text = kindText, t
	case json.Number:
		n.kind, n.text = kindInteger, string(t)
		if strings.ContainsAny(n.text, ".eE") {
			n.kind = kindFloat
		}
	case bool:
		n.kind, n.text = kindBool, "false"
		if t {
			n.text = "true"
		}
	default: // null
	}
	return nil
}
