package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/portask/portask/broker/config/document"
	"github.com/portask/portask/broker/fault"
)

// Sources are what Load reads.
type Sources struct {
	// File is read if it is not empty.
	File string
	// Env are variables in the form of os.Environ; those without the prefix are
	// not looked at.
	Env []string
	// Flags win over everything, in order.
	Flags []Override
}

// Override sets one setting.
type Override struct {
	Path string // of the setting
	Name string // what the user typed: "--listen"
	Text string
}

// Load reads the sources into the bound fields. The error is an *Error with
// every problem found, or that of opening the file; the fields then hold a
// mixture and are not to be used.
func (s *Schema) Load(src Sources) (*Snapshot, error) {
	var data []byte
	if src.File != "" {
		var err error
		if data, err = readFile(src.File); err != nil {
			return nil, err
		}
	}
	return s.load(src, data)
}

// readFile reads no more than a configuration may have; parse says so when there
// is more. It reads regular files only: to open a pipe that nobody writes would
// wait for ever, and no signal would end that.
func readFile(name string) ([]byte, error) {
	unreadable := func(code fault.Code, cause error) error {
		return fault.New(code, "load configuration").WithCategory(fault.CategoryConfiguration).WithDetail("cannot be read").WithCause(cause)
	}
	info, err := os.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		return nil, unreadable(fault.Invalid, fmt.Errorf("%s is no regular file", name))
	}
	var f *os.File
	if err == nil {
		f, err = os.Open(name)
	}
	if err != nil {
		code := fault.Invalid
		if errors.Is(err, os.ErrNotExist) {
			code = fault.NotFound
		}
		return nil, unreadable(code, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, document.FileBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("load configuration: %w", err)
	}
	return data, nil
}

// loader is one Load.
type loader struct {
	*Schema
	file     string
	settings map[*Key]Setting
	problems []Problem
	notes    []string
	version  int
}

func (s *Schema) load(src Sources, data []byte) (*Snapshot, error) {
	l := &loader{Schema: s, file: src.File, settings: make(map[*Key]Setting, len(s.keys)), version: s.opts.Version}
	for _, k := range s.keys {
		l.took(k, Origin{})
	}
	if src.File != "" {
		l.fromFile(data)
	}
	l.fromEnv(src.Env)
	for _, o := range src.Flags {
		at := Origin{Layer: LayerFlag, Name: o.Name}
		if k := s.byPath[o.Path]; k == nil {
			l.bad(Problem{Origin: at, Key: o.Path, Text: "unknown key", Nearest: s.nearest(o.Path)})
		} else {
			l.set(k, at, k.path, k.Value.setText(o.Text))
		}
	}
	l.check()
	if len(l.problems) > 0 {
		return nil, &Error{l.problems}
	}
	snap := &Snapshot{File: src.File, Content: contentOf(src.File, data), Version: l.version, Notes: l.notes, Settings: make([]Setting, len(s.keys))}
	for i, k := range s.keys {
		snap.Settings[i] = l.settings[k]
	}
	return snap, nil
}

func (l *loader) bad(p Problem) { l.problems = append(l.problems, p) }

// took notes where the value that k's field now holds came from.
func (l *loader) took(k *Key, at Origin) {
	raw := k.Value.String()
	shown := raw
	if k.Secret {
		if shown = "(not set)"; raw != "" {
			shown = "(secret)"
		}
	}
	l.settings[k] = Setting{Path: k.path, Text: shown, Origin: at, Live: k.Live, raw: raw}
}

// set notes the outcome of setting k's field.
func (l *loader) set(k *Key, at Origin, name string, err error) {
	if err == nil {
		l.took(k, at)
		return
	}
	text := err.Error()
	if k.Secret { // the error may quote the value
		text = "is not valid"
	}
	for line := range strings.Lines(text) { // a list has several
		l.bad(Problem{Origin: at, Key: name, Text: strings.TrimSuffix(line, "\n")})
	}
}

func (l *loader) fromFile(data []byte) {
	f, err := document.FormatOf(l.file)
	if err != nil {
		l.bad(Problem{Origin: Origin{LayerFile, l.file, 0}, Text: err.Error()})
		return
	}
	root, err := document.Parse(f, data)
	if err == nil && root.Kind != document.Table {
		err = &document.SyntaxError{Line: root.Line, Text: "want settings, not " + root.Kind.String()}
	}
	if err != nil {
		line := 0
		var at *document.SyntaxError
		if errors.As(err, &at) {
			line = at.Line
		}
		l.bad(Problem{Origin: Origin{LayerFile, l.file, line}, Text: err.Error()})
		return
	}
	first := len(l.problems)
	if l.readVersion(root) {
		l.migrate(root)
		l.walk(root, "")
	}
	slices.SortStableFunc(l.problems[first:], func(a, b Problem) int { return cmp.Compare(a.Origin.Line, b.Origin.Line) })
}

// readVersion takes the version out of the file; false if nothing else of it can
// be understood.
func (l *loader) readVersion(root *document.Node) bool {
	f := root.Find(versionKey)
	if f == nil {
		l.bad(Problem{Origin: Origin{LayerFile, l.file, 1}, Key: versionKey,
			Text: fmt.Sprintf("is missing; begin the file with the version it is written for, now %d", l.opts.Version)})
		return true
	}
	at := Origin{LayerFile, l.file, f.Line}
	n, err := document.ParseCount(f.Value.Text)
	switch {
	case err != nil || f.Value.Kind != document.Integer || n < 1:
		l.bad(Problem{Origin: at, Key: versionKey, Text: f.Value.Want("a whole number from 1 to " + strconv.Itoa(l.opts.Version)).Error()})
		return true
	case n > int64(l.opts.Version):
		l.bad(Problem{Origin: at, Key: versionKey, Text: fmt.Sprintf("is %d; this program knows configurations up to version %d", n, l.opts.Version)})
		return false
	}
	l.version = int(n)
	return true
}

// walk sets what a table of the file says.
func (l *loader) walk(table *document.Node, prefix string) {
	for i := range table.Fields {
		f := &table.Fields[i]
		path := prefix + f.Name
		at := Origin{LayerFile, l.file, f.Line}
		k := l.byPath[path]
		switch {
		case path == versionKey: // read already
		case path == schemaKey:
			if f.Value.Kind != document.Text {
				l.bad(Problem{Origin: at, Key: path, Text: f.Value.Want("a string in quotes").Error()})
			}
		case k != nil && l.settings[k].Origin.Layer == LayerFile: // once as a dotted name
			l.bad(Problem{Origin: at, Key: path, Text: fmt.Sprintf("is there twice, first in line %d", l.settings[k].Origin.Line)})
		case k != nil:
			at.Line = max(at.Line, f.Value.Line)
			l.set(k, at, path, k.Value.setNode(&f.Value))
		case !l.tables[path]:
			p := Problem{Origin: at, Key: shortened(path), Text: "unknown key"}
			if len(l.problems) < suggestionsMax {
				p.Nearest = l.nearest(path)
			}
			l.bad(p)
		case f.Value.Kind == document.None: // a section with all its lines commented out
		case f.Value.Kind != document.Table:
			l.bad(Problem{Origin: at, Key: path, Text: f.Value.Want("a table of settings").Error()})
		default:
			l.walk(&f.Value, path+".")
		}
	}
}

// suggestionsMax is for files that are no configuration at all.
const suggestionsMax = 50

func shortened(s string) string {
	if len(s) > 120 {
		return s[:117] + "..."
	}
	return s
}

func (l *loader) fromEnv(env []string) {
	for _, v := range env {
		name, text, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, l.opts.Env) || slices.Contains(l.opts.EnvOther, name) {
			continue
		}
		at := Origin{Layer: LayerEnv, Name: name}
		if k := l.byEnv[name]; k != nil {
			l.set(k, at, k.path, k.Value.setText(text))
		} else if !isServiceLink(name, l.opts.Env) {
			l.bad(Problem{Origin: at, Text: "no such setting", Nearest: l.nearestEnv(name)})
		}
	}
}

// isServiceLink recognises the variables that Kubernetes makes in every pod for
// each service. Those of a service "portask" or "portask-anything" begin with
// our prefix.
func isServiceLink(name, prefix string) bool {
	rest := "_" + strings.TrimPrefix(name, prefix)
	for _, mark := range []string{"_SERVICE_HOST", "_SERVICE_PORT"} {
		if strings.HasSuffix(rest, mark) || strings.Contains(rest, mark+"_") {
			return true
		}
	}
	if strings.HasSuffix(rest, "_PORT") {
		return true
	}
	_, rest, ok := strings.Cut(rest, "_PORT_")
	digits := strings.TrimLeft(rest, "0123456789")
	return ok && len(digits) < len(rest) &&
		(strings.HasPrefix(digits, "_TCP") || strings.HasPrefix(digits, "_UDP") || strings.HasPrefix(digits, "_SCTP"))
}

// check asks the components.
func (l *loader) check() {
	if l.opts.Check == nil {
		return
	}
	said := map[string]bool{}
	for _, p := range l.problems {
		said[p.Key] = true
	}
	for _, err := range split(l.opts.Check()) {
		var f *fault.Error
		if !errors.As(err, &f) || l.byField[f.Field] == nil {
			l.bad(Problem{Text: err.Error()})
			continue
		}
		k := l.byField[f.Field]
		if said[k.path] {
			continue // its field holds something else by now
		}
		own := *f
		own.Op, own.Field = "", ""
		l.bad(Problem{Origin: l.settings[k].Origin, Key: k.path, Text: own.Error()})
	}
}

// split takes joined errors apart.
func split(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, split(e)...)
	}
	return out
}
