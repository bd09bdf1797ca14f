package config

import (
	"fmt"
	"slices"
	"strings"
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
func (l *loader) migrate(root *node) {
	for _, m := range l.opts.Migrations {
		if m.To <= l.version {
			continue
		}
		for _, mv := range m.Moves {
			l.move(root, m.To, mv)
		}
	}
}

func (l *loader) move(root *node, to int, mv Move) {
	f, ok := take(root, strings.Split(mv.From, "."))
	if !ok {
		return
	}
	at := Origin{LayerFile, l.file, f.line}
	why := ""
	if mv.Why != "" {
		why = ": " + mv.Why
	}
	if mv.To == "" {
		l.notes = append(l.notes, fmt.Sprintf("%s: %s is gone since version %d%s", at, mv.From, to, why))
		return
	}
	if mv.Text != nil && f.value.kind != kindTable && f.value.kind != kindList {
		text, err := mv.Text(f.value.text)
		if err != nil {
			l.bad(Problem{Origin: at, Key: mv.From, Text: err.Error()})
			return
		}
		f.value.kind, f.value.text = kindText, text
	}
	l.notes = append(l.notes, fmt.Sprintf("%s: %s is %s since version %d%s", at, mv.From, mv.To, to, why))
	if err := put(root, strings.Split(mv.To, "."), f); err != nil {
		l.bad(Problem{Origin: at, Key: mv.From, Text: err.Error()})
	}
}

// take removes a field from the tree.
func take(n *node, path []string) (field, bool) {
	for ; len(path) > 1; path = path[1:] {
		f := n.find(path[0])
		if f == nil || f.value.kind != kindTable {
			return field{}, false
		}
		n = &f.value
	}
	i := slices.IndexFunc(n.fields, func(f field) bool { return f.name == path[0] })
	if i < 0 {
		return field{}, false
	}
	f := n.fields[i]
	n.fields = slices.Delete(n.fields, i, i+1)
	return f, true
}

// put adds a field, with the tables above it.
func put(n *node, path []string, f field) error {
	for ; len(path) > 1; path = path[1:] {
		next := n.find(path[0])
		if next == nil {
			n.fields = append(n.fields, field{name: path[0], line: f.line, value: node{kind: kindTable, line: f.line}})
			next = &n.fields[len(n.fields)-1]
		}
		if next.value.kind != kindTable {
			return fmt.Errorf("cannot move: %s is no table", quoted(path[0]))
		}
		n = &next.value
	}
	f.name = path[0]
	return n.add(f)
}
