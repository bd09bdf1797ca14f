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
func (s *Schema) Write(w io.Writer, f Format, head []string, entries []Entry) error {
	if entries == nil {
		for _, k := range s.keys {
			entries = append(entries, Entry{Path: k.path})
		}
	}
	comments := map[string]string{}
	root := &node{kind: kindTable}
	root.fields = append(root.fields, field{name: versionKey, value: node{kind: kindInteger, text: strconv.Itoa(s.opts.Version)}})
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
		if err := put(root, strings.Split(k.path, "."), field{value: k.Value.node()}); err != nil {
			return err
		}
	}
	p := printer{comments: comments}
	switch f {
	case YAML:
		p.head(head)
		p.yaml(root, "", "")
	case TOML:
		p.head(head)
		p.toml(root, "")
	case JSON:
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

func (p *printer) yaml(table *node, prefix, indent string) {
	for i := range table.fields {
		f := &table.fields[i]
		if prefix == "" && f.value.kind == kindTable {
			p.b = append(p.b, '\n')
		}
		p.comment(indent, prefix+f.name)
		p.printf("%s%s:", indent, f.name)
		switch f.value.kind {
		case kindTable:
			p.b = append(p.b, '\n')
			p.yaml(&f.value, prefix+f.name+".", indent+"  ")
		case kindList:
			p.printf(" [%s]\n", strings.Join(scalars(f.value.items, yamlScalar), ", "))
		default:
			p.printf(" %s\n", yamlScalar(&f.value))
		}
	}
}

func (p *printer) toml(table *node, prefix string) {
	var below []*field
	for i := range table.fields {
		f := &table.fields[i]
		if f.value.kind == kindTable {
			below = append(below, f)
			continue
		}
		p.comment("", prefix+f.name)
		if f.value.kind == kindList {
			p.printf("%s = [%s]\n", f.name, strings.Join(scalars(f.value.items, tomlScalar), ", "))
		} else {
			p.printf("%s = %s\n", f.name, tomlScalar(&f.value))
		}
	}
	for _, f := range below {
		p.b = append(p.b, '\n')
		p.comment("", prefix+f.name)
		p.printf("[%s%s]\n", prefix, f.name)
		p.toml(&f.value, prefix+f.name+".")
	}
}

func (p *printer) json(n *node, indent string) {
	switch n.kind {
	case kindTable:
		p.b = append(p.b, '{')
		for i := range n.fields {
			if i > 0 {
				p.b = append(p.b, ',')
			}
			p.printf("\n%s  %s: ", indent, jsonString(n.fields[i].name))
			p.json(&n.fields[i].value, indent+"  ")
		}
		p.printf("\n%s}", indent)
	case kindList:
		p.printf("[%s]", strings.Join(scalars(n.items, jsonScalar), ", "))
	default:
		p.printf("%s", jsonScalar(n))
	}
}

func scalars(items []node, write func(*node) string) []string {
	out := make([]string, len(items))
	for i := range items {
		out[i] = write(&items[i])
	}
	return out
}

func jsonScalar(n *node) string {
	if n.kind == kindText {
		return jsonString(n.text)
	}
	return n.text
}

func jsonString(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	return strings.TrimSuffix(b.String(), "\n")
}

func tomlScalar(n *node) string {
	if n.kind == kindText {
		return quote(n.text)
	}
	return n.text
}

// yamlScalar leaves quotes away where every reader of YAML agrees that the text
// is a string.
func yamlScalar(n *node) string {
	if n.kind != kindText {
		return n.text
	}
	if s := n.text; plain.MatchString(s) && !slices.Contains(yamlWords, strings.ToLower(s)) &&
		strings.ContainsFunc(s, unicode.IsLetter) && !looksLikeNumber(s) {
		return s
	}
	return quote(n.text)
}

var yamlWords = []string{"true", "false", "yes", "no", "on", "off", "y", "n", "null"}

var plain = regexp.MustCompile(`^[A-Za-z0-9/][A-Za-z0-9_./-]*$`)

// looksLikeNumber is true for what some reader might take for a number: 0x1F,
// 0o17, 1e3, and anything else of that shape. 64MiB and 30s are not.
func looksLikeNumber(s string) bool {
	if s[0] < '0' || s[0] > '9' {
		return false
	}
	if _, err := ParseSize(s); err == nil {
		return false
	}
	_, err := ParseDuration(s)
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
