package config

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

func parseYAML(data []byte) (*node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return &node{kind: kindTable, line: 1}, nil // empty, or comments only
	case err != nil:
		return nil, yamlError(err)
	}
	root := &node{kind: kindTable, line: 1}
	if len(doc.Content) > 0 && doc.Content[0].ShortTag() != "!!null" {
		if err := yamlNode(doc.Content[0], root, 0); err != nil {
			return nil, err
		}
	}
	var second yaml.Node
	switch err := dec.Decode(&second); {
	case err == nil:
		return nil, &lineError{second.Line, "a second document; a file holds one configuration"}
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
		return &lineError{line, text}
	}
	return &lineError{1, strings.TrimPrefix(text, "yaml: ")}
}

func yamlNode(y *yaml.Node, n *node, depth int) error {
	if depth > depthMax {
		return &lineError{y.Line, errDeep}
	}
	n.line = y.Line
	switch y.Kind {
	case yaml.MappingNode:
		n.kind = kindTable
		for i := 0; i+1 < len(y.Content); i += 2 {
			key := y.Content[i]
			if key.Kind != yaml.ScalarNode {
				return &lineError{key.Line, "a key must be a name"}
			}
			f := field{name: key.Value, line: key.Line}
			if err := yamlNode(y.Content[i+1], &f.value, depth+1); err != nil {
				return err
			}
			if err := n.add(f); err != nil {
				return err
			}
		}
	case yaml.SequenceNode:
		n.kind = kindList
		n.items = make([]node, len(y.Content))
		for i, item := range y.Content {
			if err := yamlNode(item, &n.items[i], depth+1); err != nil {
				return err
			}
		}
	case yaml.ScalarNode:
		n.text = y.Value
		switch y.ShortTag() {
		case "!!str":
			n.kind = kindText
		case "!!int":
			n.kind = kindInteger
		case "!!float":
			n.kind = kindFloat
		case "!!bool":
			n.kind, n.text = kindBool, strings.ToLower(y.Value)
		case "!!null":
		default:
			n.kind = kindOther
		}
	default:
		return &lineError{y.Line, "anchors and aliases are not supported"}
	}
	return nil
}
