package document

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

func parseYAML(data []byte) (*Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return &Node{Kind: Table, Line: 1}, nil // empty, or comments only
	case err != nil:
		return nil, yamlError(err)
	}
	root := &Node{Kind: Table, Line: 1}
	if len(doc.Content) > 0 && doc.Content[0].ShortTag() != "!!null" {
		if err := yamlNode(doc.Content[0], root, 0); err != nil {
			return nil, err
		}
	}
	var second yaml.Node
	switch err := dec.Decode(&second); {
	case err == nil:
		return nil, &SyntaxError{second.Line, "a second document; a file holds one"}
	case !errors.Is(err, io.EOF):
		return nil, yamlError(err)
	}
	return root, nil
}

// yamlOneLess are the errors of the library's parser. It counts their lines from
// 0, those of its scanner from 1.
var yamlOneLess = []string{
	"did not find expected <document start>", "did not find expected node content", "did not find expected key",
	"did not find expected '-' indicator", "did not find expected ',' or ']'", "did not find expected ',' or '}'",
}

// yamlError takes the line out of the library's text.
func yamlError(err error) error {
	text := err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ := strconv.Atoi(m[1]) // digits
		text = text[len(m[0]):]
		if slices.Contains(yamlOneLess, text) {
			line++
		}
		return &SyntaxError{line, text}
	}
	return &SyntaxError{1, strings.TrimPrefix(text, "yaml: ")}
}

func yamlNode(y *yaml.Node, n *Node, depth int) error {
	if depth > depthMax {
		return &SyntaxError{y.Line, errDeep}
	}
	n.Line = y.Line
	switch y.Kind {
	case yaml.MappingNode:
		n.Kind = Table
		for i := 0; i+1 < len(y.Content); i += 2 {
			key := y.Content[i]
			if key.Kind != yaml.ScalarNode {
				return &SyntaxError{key.Line, "a key must be a name"}
			}
			f := Field{Name: key.Value, Line: key.Line}
			if err := yamlNode(y.Content[i+1], &f.Value, depth+1); err != nil {
				return err
			}
			if err := n.Add(f); err != nil {
				return err
			}
		}
	case yaml.SequenceNode:
		n.Kind = List
		n.Items = make([]Node, len(y.Content))
		for i, item := range y.Content {
			if err := yamlNode(item, &n.Items[i], depth+1); err != nil {
				return err
			}
		}
	case yaml.ScalarNode:
		n.Text = y.Value
		switch y.ShortTag() {
		case "!!str":
			n.Kind = Text
		case "!!int":
			n.Kind = Integer
		case "!!float":
			n.Kind = Float
		case "!!bool":
			n.Kind, n.Text = Bool, strings.ToLower(y.Value)
		case "!!null":
		default:
			n.Kind = Other
		}
	default:
		return &SyntaxError{y.Line, "anchors and aliases are not supported"}
	}
	return nil
}
