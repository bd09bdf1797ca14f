package config

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/portask/portask/broker/config/document"
)

// Reference writes the table as Markdown: a section for each area, a line for
// each setting with the default that its field now holds.
func (s *Schema) Reference(w io.Writer) error {
	var b strings.Builder
	for _, a := range s.areas {
		fmt.Fprintf(&b, "### %s\n\n%s\n\n| key | default | takes | live | |\n| --- | --- | --- | --- | --- |\n", a.Name, a.Doc)
		for i := range a.Keys {
			k := &a.Keys[i]
			live := ""
			if k.Live {
				live = "yes"
			}
			def := "`" + k.Value.String() + "`"
			if k.Secret || def == "``" {
				def = ""
			}
			doc := k.Doc
			if k.Flag != "" {
				doc += " Flag `--" + k.Flag + "`."
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.path, def, cell(k.takes()), live, cell(doc))
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, strings.TrimSuffix(b.String(), "\n"))
	return err
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

// JSONSchema is the table as a JSON Schema (draft 2020-12), for editors and for
// whoever generates configurations. It knows names, types and words; limits of
// sizes written with units, and what settings mean together, are Load's.
func (s *Schema) JSONSchema(title string) ([]byte, error) {
	root := s.object("")
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = title
	props := root["properties"].(map[string]any)
	props[versionKey] = map[string]any{"const": s.opts.Version, "description": "The version of the table the file is written for."}
	props[schemaKey] = map[string]any{"type": "string", "description": "Where an editor finds this schema."}
	root["required"] = []string{versionKey}
	for _, a := range s.areas {
		props[a.Name].(map[string]any)["description"] = a.Doc
	}
	return json.MarshalIndent(root, "", "  ")
}

// object is the schema of the table at prefix ("" or "network.").
func (s *Schema) object(prefix string) map[string]any {
	props := map[string]any{}
	for _, k := range s.keys {
		rest, ok := strings.CutPrefix(k.path, prefix)
		if !ok {
			continue
		}
		name, _, deeper := strings.Cut(rest, ".")
		switch {
		case deeper && props[name] == nil:
			props[name] = s.object(prefix + name + ".")
		case !deeper:
			p := k.Value.schema()
			p["description"] = k.Doc
			if !k.Secret {
				p["default"] = jsonDefault(k.Value.node())
			}
			props[name] = p
		}
	}
	return map[string]any{"type": []string{"object", "null"}, "properties": props, "additionalProperties": false}
}

func jsonDefault(n document.Node) any {
	switch n.Kind {
	case document.List:
		out := make([]any, len(n.Items))
		for i := range n.Items {
			out[i] = jsonDefault(n.Items[i])
		}
		return out
	case document.Text:
		return n.Text
	}
	return json.RawMessage(n.Text) // a number or a boolean
}
