package config

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/portask/portask/broker/config/document"
)

// Entry is a setting of a file to be written.
type Entry struct {
	Path string
	// Comment stands above it; empty means the Key's documentation.
	Comment string
}

// Write writes a file with the present values of the entries, or of all settings
// if there are none, each under a comment (JSON has no comments). head is the
// comment at the top, a line each. What Write writes, Load reads back as it was.
// A Secret setting is left out: a sample is meant to be passed on.
func (s *Schema) Write(w io.Writer, f document.Format, head []string, entries []Entry) error {
	if entries == nil {
		for _, k := range s.keys {
			entries = append(entries, Entry{Path: k.path})
		}
	}
	comments := map[string]string{}
	root := &document.Node{Kind: document.Table}
	root.Fields = append(root.Fields, document.Field{Name: versionKey, Value: document.Node{Kind: document.Integer, Text: strconv.Itoa(s.opts.Version)}})
	for _, a := range s.areas {
		comments[a.Name] = a.Doc
	}
	for _, e := range entries {
		k := s.byPath[e.Path]
		if k == nil {
			return fmt.Errorf("write configuration: %s: unknown key", e.Path)
		}
		if k.Secret {
			continue
		}
		if comments[e.Path] = e.Comment; e.Comment == "" {
			comments[e.Path] = k.comment()
		}
		if err := put(root, strings.Split(k.path, "."), document.Field{Value: k.Value.node()}); err != nil {
			return err
		}
	}
	p := printer{comments: comments}
	switch f {
	case document.YAML:
		p.head(head)
		p.yaml(root, "", "")
	case document.TOML:
		p.head(head)
		p.toml(root, "")
	case document.JSON:
		p.json(root, "")
		p.b = append(p.b, '\n')
	default:
		return fmt.Errorf("write configuration: unknown format %d", f)
	}
	_, err := w.Write(p.b)
	return err
}

// Usage is the documentation in one line, with the words that are taken, for the
// help of a command.
func (k *Key) Usage() string {
	switch k.Value.Type() {
	case "word", "list":
		return k.Doc + " " + k.takes() + "."
	}
	return k.Doc
}

// takes is what the setting takes, as a phrase: "Size, 1KiB to 1GiB, or auto".
func (k *Key) takes() string {
	kind, limits := k.Value.Type(), k.Value.Limits()
	switch {
	case kind == "word":
		return "One of " + limits
	case kind == "list":
		return "List " + limits
	case limits != "":
		kind += ", " + limits
	}
	return strings.ToUpper(kind[:1]) + kind[1:]
}

// comment is the documentation for people who see the setting in a file.
func (k *Key) comment() string {
	s := k.Doc + " " + k.takes() + "."
	if k.Live {
		s += " Live."
	}
	return s
}

type printer struct {
	b        []byte
	comments map[string]string
}

func (p *printer) printf(format string, args ...any) { p.b = fmt.Appendf(p.b, format, args...) }

func (p *printer) head(lines []string) {
	for _, l := range lines {
		p.printf("%s\n", strings.TrimRight("# "+l, " "))
	}
}

// lineBytes is how long a comment's lines may get.
const lineBytes = 118

func (p *printer) comment(indent, path string) {
	line := ""
	for word := range strings.FieldsSeq(p.comments[path]) {
		if line != "" && len(indent)+2+len(line)+1+len(word) > lineBytes {
			p.printf("%s# %s\n", indent, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		p.printf("%s# %s\n", indent, line)
	}
}

func (p *printer) yaml(table *document.Node, prefix, indent string) {
	for i := range table.Fields {
		f := &table.Fields[i]
		if prefix == "" && f.Value.Kind == document.Table {
			p.b = append(p.b, '\n')
		}
		p.comment(indent, prefix+f.Name)
		p.printf("%s%s:", indent, f.Name)
		switch f.Value.Kind {
		case document.Table:
			p.b = append(p.b, '\n')
			p.yaml(&f.Value, prefix+f.Name+".", indent+"  ")
		case document.List:
			p.printf(" [%s]\n", strings.Join(scalars(f.Value.Items, yamlScalar), ", "))
		default:
			p.printf(" %s\n", yamlScalar(&f.Value))
		}
	}
}

func (p *printer) toml(table *document.Node, prefix string) {
	var below []*document.Field
	for i := range table.Fields {
		f := &table.Fields[i]
		if f.Value.Kind == document.Table {
			below = append(below, f)
			continue
		}
		p.comment("", prefix+f.Name)
		if f.Value.Kind == document.List {
			p.printf("%s = [%s]\n", f.Name, strings.Join(scalars(f.Value.Items, tomlScalar), ", "))
		} else {
			p.printf("%s = %s\n", f.Name, tomlScalar(&f.Value))
		}
	}
	for _, f := range below {
		p.b = append(p.b, '\n')
		p.comment("", prefix+f.Name)
		p.printf("[%s%s]\n", prefix, f.Name)
		p.toml(&f.Value, prefix+f.Name+".")
	}
}

func (p *printer) json(n *document.Node, indent string) {
	switch n.Kind {
	case document.Table:
		p.b = append(p.b, '{')
		for i := range n.Fields {
			if i > 0 {
				p.b = append(p.b, ',')
			}
			p.printf("\n%s  %s: ", indent, jsonString(n.Fields[i].Name))
			p.json(&n.Fields[i].Value, indent+"  ")
		}
		p.printf("\n%s}", indent)
	case document.List:
		p.printf("[%s]", strings.Join(scalars(n.Items, jsonScalar), ", "))
	default:
		p.printf("%s", jsonScalar(n))
	}
}

func scalars(items []document.Node, write func(*document.Node) string) []string {
	out := make([]string, len(items))
	for i := range items {
		out[i] = write(&items[i])
	}
	return out
}

func jsonScalar(n *document.Node) string {
	if n.Kind == document.Text {
		return jsonString(n.Text)
	}
	return n.Text
}

func jsonString(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	return strings.TrimSuffix(b.String(), "\n")
}

func tomlScalar(n *document.Node) string {
	if n.Kind == document.Text {
		return quote(n.Text)
	}
	return n.Text
}

// yamlScalar leaves quotes away where every reader of YAML agrees that the text
// is a string.
func yamlScalar(n *document.Node) string {
	if n.Kind != document.Text {
		return n.Text
	}
	if s := n.Text; plain.MatchString(s) && !slices.Contains(yamlWords, strings.ToLower(s)) &&
		strings.ContainsFunc(s, unicode.IsLetter) && !looksLikeNumber(s) {
		return s
	}
	return quote(n.Text)
}

var yamlWords = []string{"true", "false", "yes", "no", "on", "off", "y", "n", "null"}

var plain = regexp.MustCompile(`^[A-Za-z0-9/][A-Za-z0-9_./-]*$`)

// looksLikeNumber is true for what some reader might take for a number: 0x1F,
// 0o17, 1e3, and anything else of that shape. 64MiB and 30s are not.
func looksLikeNumber(s string) bool {
	if s[0] < '0' || s[0] > '9' {
		return false
	}
	if _, err := document.ParseSize(s); err == nil {
		return false
	}
	_, err := document.ParseDuration(s)
	return err != nil
}

// quote writes a string that YAML and TOML both read: between double quotes,
// with escapes they share.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r > 0xffff && !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\U%08X`, r)
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
