package scenario

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/portask/portask/broker/config/document"
)

// Setting is a setting given beside a file: path and value, as of
// `--set producers.count=4`. In a path an item of a list is its number from 0,
// its name, or * for all of them.
type Setting struct {
	Path, Value string
	// From names the flag it was given by, for messages; empty: --set.
	From string
}

func (x Setting) from() string { return cmp.Or(x.From, "--set") }

// ParseSetting splits "path=value".
func ParseSetting(s string) (Setting, error) {
	path, value, ok := strings.Cut(s, "=")
	if !ok || path == "" {
		return Setting{}, fmt.Errorf("--set %s: want path=value", document.Quoted(s))
	}
	return Setting{Path: path, Value: value}, nil
}

// MaxFileBytes bounds a scenario's file.
const MaxFileBytes = 1 << 20

// Load reads a file of at most MaxFileBytes, which may be a pipe. Paths in it are
// relative to its directory.
func Load(file string, settings ...Setting) (*Scenario, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxFileBytes {
		return nil, fmt.Errorf("%s: longer than the %d bytes that a scenario may have", file, MaxFileBytes)
	}
	s, err := Parse(file, data, settings...)
	if s != nil {
		s.Dir = filepath.Dir(file)
	}
	return s, err
}

// Parse reads a scenario: JSON if the file's name ends so, else YAML. Settings
// win over the file. The error is an *Error with every problem.
func Parse(file string, data []byte, settings ...Setting) (*Scenario, error) {
	src := &source{file: file, lines: map[string]int{}, flags: map[string]string{}, many: map[string]bool{}}
	s := Default()
	if name := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file)); checkName(name) == nil {
		s.Name = name
	}
	format := document.YAML
	if strings.EqualFold(filepath.Ext(file), ".json") {
		format = document.JSON
	}
	root, err := document.Parse(format, data)
	if err != nil {
		p := Problem{File: file, Text: err.Error()}
		if e, ok := errors.AsType[*document.SyntaxError](err); ok {
			p.Line = e.Line
		}
		return nil, &Error{[]Problem{p}}
	}
	if root.Kind != document.Table {
		return nil, &Error{[]Problem{{File: file, Line: 1, Text: root.Kind.String() + ": want a table"}}}
	}
	src.version(root)
	src.read(root, "", s.table())
	src.apply(s, settings)
	s.check(src)
	if err := src.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// With returns the default scenario with settings: what a command line without
// a file says.
func With(settings ...Setting) (*Scenario, error) {
	src := &source{lines: map[string]int{}, flags: map[string]string{}, many: map[string]bool{}}
	s := Default()
	src.apply(s, settings)
	s.check(src)
	if err := src.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// Validate checks a scenario that a program made: each setting, and all
// together. The error is an *Error.
func (s *Scenario) Validate() error {
	src := &source{lines: map[string]int{}, flags: map[string]string{}, many: map[string]bool{}}
	src.each("", s.table())
	s.check(src)
	return src.err()
}

// each sets every setting to what it is.
func (src *source) each(prefix string, table []entry) {
	for _, e := range table {
		path := prefix + e.name
		switch {
		case e.only != nil && !e.only():
		case e.table != nil:
			src.each(path+".", e.table)
		case e.list != nil:
			for i := range e.list.len() {
				src.each(path+"."+strconv.Itoa(i)+".", e.list.at(i))
			}
		default:
			if err := e.v.set(e.v.text()); err != nil {
				src.bad(path, "%v", err)
			}
		}
	}
}

// version takes the format's version out of the file.
func (src *source) version(root *document.Node) {
	for i := range root.Fields {
		f := &root.Fields[i]
		if f.Name != "version" {
			continue
		}
		if f.Value.Text != strconv.Itoa(Version) {
			src.lines["version"] = f.Line
			src.bad("version", "%s: this program reads version %d", document.Quoted(f.Value.Text), Version)
		}
		root.Fields = append(root.Fields[:i:i], root.Fields[i+1:]...)
		return
	}
	src.bad("", "the file does not begin with its version: version: %d", Version)
}

// read sets what stands in n.
func (src *source) read(n *document.Node, prefix string, table []entry) {
	for i := range n.Fields {
		f := &n.Fields[i]
		path := prefix + f.Name
		src.lines[path] = f.Line
		e := find(table, f.Name)
		if e == nil {
			src.unknown(path, f.Name, table)
			continue
		}
		switch {
		case e.table != nil:
			if f.Value.Kind != document.Table {
				src.bad(path, "%s: want a table", f.Value.Kind)
				continue
			}
			src.read(&f.Value, path+".", e.table)
		case e.list != nil:
			src.readList(&f.Value, path, e.list)
		default:
			if k := f.Value.Kind; k == document.Table || k == document.List || k == document.None {
				src.bad(path, "%s: want %s", k, e.v.want())
				continue
			}
			if err := e.v.set(f.Value.Text); err != nil {
				src.bad(path, "%v", err)
			}
		}
	}
}

func (src *source) readList(n *document.Node, path string, l *list) {
	if n.Kind != document.List {
		src.bad(path, "%s: want a list", n.Kind)
		return
	}
	if len(n.Items) > l.max {
		src.bad(path, "%d items: want at most %d", len(n.Items), l.max)
		return
	}
	l.clear()
	for i := range n.Items {
		at := path + "." + strconv.Itoa(i)
		src.lines[at] = n.Items[i].Line
		l.add()
		if n.Items[i].Kind != document.Table {
			src.bad(at, "%s: want a table", n.Items[i].Kind)
			continue
		}
		src.read(&n.Items[i], at+".", l.at(i))
	}
}

func find(table []entry, name string) *entry {
	for i := range table {
		if table[i].name == name {
			return &table[i]
		}
	}
	return nil
}

func (src *source) unknown(path, name string, table []entry) {
	names := make([]string, len(table))
	for i := range table {
		names[i] = table[i].name
	}
	src.bad(path, "unknown setting")
	src.problems[len(src.problems)-1].Nearest = document.Nearest(name, names)
}

// apply sets settings.
func (src *source) apply(s *Scenario, settings []Setting) {
	for _, x := range settings {
		src.set(s.table(), strings.Split(x.Path, "."), "", x)
	}
}

// set follows rest, of which prefix has been walked.
func (src *source) set(table []entry, rest []string, prefix string, x Setting) {
	path := prefix + rest[0]
	src.flags[path] = x.from()
	e := find(table, rest[0])
	if e == nil {
		src.unknown(path, rest[0], table)
		return
	}
	rest = rest[1:]
	switch {
	case e.list != nil:
		src.setItem(e.list, rest, path, x)
	case e.table != nil:
		if len(rest) == 0 {
			src.bad(path, "a table: want one of its settings")
			return
		}
		src.set(e.table, rest, path+".", x)
	case len(rest) > 0:
		src.bad(path, "has no settings of its own")
	default:
		if err := e.v.set(x.Value); err != nil {
			src.bad(path, "%v", err)
		}
	}
}

func (src *source) setItem(l *list, rest []string, path string, x Setting) {
	if len(rest) < 2 {
		src.bad(path, "a list: want an item (a number, a name, or *) and one of its settings")
		return
	}
	found := false
	for i := range l.len() {
		if rest[0] == "*" || rest[0] == strconv.Itoa(i) || rest[0] == l.name(i) {
			found = true
			at := path + "." + strconv.Itoa(i) + "."
			if rest[0] == "*" {
				src.many[at+rest[1]] = true
			}
			src.flags[at[:len(at)-1]] = x.from()
			src.set(l.at(i), rest[1:], at, x)
		}
	}
	if !found {
		src.flags[path+"."+rest[0]] = x.from()
		src.bad(path+"."+rest[0], "no such item; there are %d", l.len())
	}
}
