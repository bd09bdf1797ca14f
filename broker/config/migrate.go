package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/portask/portask/broker/config/document"
)

// Migration turns a file of version To-1 (or any before, down to the Migration
// before it) into one of version To.
type Migration struct {
	To    int
	Moves []Move
}

// Move is what became of one setting.
type Move struct {
	// From and To are paths; without To the setting is gone.
	From, To string
	// Text rewrites a scalar; nil keeps it. What it returns is taken for a
	// string.
	Text func(old string) (string, error)
	// Why, in a few words, for the note that the user gets.
	Why string
}

// migrate applies what has changed since the file's version. Values keep their
// lines, so that problems are shown where the user wrote them.
func (l *loader) migrate(root *document.Node) {
	for _, m := range l.opts.Migrations {
		if m.To <= l.version {
			continue
		}
		for _, mv := range m.Moves {
			l.move(root, m.To, mv)
		}
	}
}

func (l *loader) move(root *document.Node, to int, mv Move) {
	f, ok := take(root, strings.Split(mv.From, "."))
	if !ok {
		return
	}
	at := Origin{LayerFile, l.file, f.Line}
	why := ""
	if mv.Why != "" {
		why = ": " + mv.Why
	}
	if mv.To == "" {
		l.notes = append(l.notes, fmt.Sprintf("%s: %s is gone since version %d%s", at, mv.From, to, why))
		return
	}
	if mv.Text != nil && f.Value.Kind != document.Table && f.Value.Kind != document.List {
		text, err := mv.Text(f.Value.Text)
		if err != nil {
			l.bad(Problem{Origin: at, Key: mv.From, Text: err.Error()})
			return
		}
		f.Value.Kind, f.Value.Text = document.Text, text
	}
	l.notes = append(l.notes, fmt.Sprintf("%s: %s is %s since version %d%s", at, mv.From, mv.To, to, why))
	if err := put(root, strings.Split(mv.To, "."), f); err != nil {
		l.bad(Problem{Origin: at, Key: mv.From, Text: err.Error()})
	}
}

// take removes a field from the tree.
func take(n *document.Node, path []string) (document.Field, bool) {
	for ; len(path) > 1; path = path[1:] {
		f := n.Find(path[0])
		if f == nil || f.Value.Kind != document.Table {
			return document.Field{}, false
		}
		n = &f.Value
	}
	i := slices.IndexFunc(n.Fields, func(f document.Field) bool { return f.Name == path[0] })
	if i < 0 {
		return document.Field{}, false
	}
	f := n.Fields[i]
	n.Fields = slices.Delete(n.Fields, i, i+1)
	return f, true
}

// put adds a field, with the tables above it.
func put(n *document.Node, path []string, f document.Field) error {
	for ; len(path) > 1; path = path[1:] {
		next := n.Find(path[0])
		if next == nil {
			n.Fields = append(n.Fields, document.Field{Name: path[0], Line: f.Line, Value: document.Node{Kind: document.Table, Line: f.Line}})
			next = &n.Fields[len(n.Fields)-1]
		}
		if next.Value.Kind != document.Table {
			return fmt.Errorf("cannot move: %s is no table", document.Quoted(path[0]))
		}
		n = &next.Value
	}
	f.Name = path[0]
	return n.Add(f)
}
