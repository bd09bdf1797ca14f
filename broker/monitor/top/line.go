package top

import (
	"math"
	"strings"
)

// Role is the meaning of a piece of text. What a role looks like is a Theme's
// affair; nothing is told by looks alone.
type Role uint8

const (
	Plain  Role = iota
	Faint       // labels, rules, units
	Strong      // titles, the sort column
	Accent      // bars and sparklines
	Warn        // what deserves attention
	Alarm       // what needs action
)

// Span is text in one role.
type Span struct {
	Text string
	Role Role
}

// Line is one line of a frame.
type Line []Span

// Width is the number of columns.
func (l Line) Width() (n int) {
	for _, s := range l {
		n += width(s.Text)
	}
	return n
}

// String is the line without roles and without spaces at its end.
func (l Line) String() string {
	var b strings.Builder
	for _, s := range l {
		b.WriteString(s.Text)
	}
	return strings.TrimRight(b.String(), " ")
}

func text(s string) Span   { return Span{s, Plain} }
func faint(s string) Span  { return Span{s, Faint} }
func strong(s string) Span { return Span{s, Strong} }

// fit cuts l to n columns.
func (l Line) fit(n int, mark string) Line {
	if l.Width() <= n {
		return l
	}
	var out Line
	for _, s := range l {
		w := width(s.Text)
		if w <= n {
			out = append(out, s)
			n -= w
			continue
		}
		return append(out, Span{fit(s.Text, n, mark), s.Role})
	}
	return out
}

// pad fills l up to n columns.
func (l Line) pad(n int) Line {
	if d := n - l.Width(); d > 0 {
		return append(l[:len(l):len(l)], text(spaces(d)))
	}
	return l
}

// beside puts two blocks next to each other, the first n columns wide.
func beside(a, b []Line, n int, mark string) []Line {
	out := make([]Line, 0, max(len(a), len(b)))
	for i := range max(len(a), len(b)) {
		var l Line
		if i < len(a) {
			l = a[i].fit(n, mark)
		}
		if i < len(b) {
			l = append(l.pad(n), b[i]...)
		}
		out = append(out, l)
	}
	return out
}

// flow writes a label and items after it, over as many lines as it takes; the
// label takes indent columns.
func flow(label string, items []Line, indent, n int, mark string) []Line {
	if len(items) == 0 {
		return nil
	}
	const gap = 2
	lines := []Line{{faint(left(label, indent))}}
	used := indent
	for i, item := range items {
		l := &lines[len(lines)-1]
		w := item.Width()
		if i > 0 && used > indent && used+gap+w > n {
			lines = append(lines, Line{text(spaces(indent))})
			l, used = &lines[len(lines)-1], indent
		}
		if used > indent {
			*l = append(*l, text(spaces(gap)))
			used += gap
		}
		*l = append(*l, item...)
		used += w
	}
	for i := range lines {
		lines[i] = lines[i].fit(n, mark)
	}
	return lines
}

// Theme is how roles look: the parameters of an SGR sequence (ECMA-48, 8.3.117)
// for each, empty for none.
type Theme [Alarm + 1]string

// The themes. Warn and Alarm differ in weight too, and stand beside words, so
// that nothing hangs on telling colours apart; the pair of blue and orange is the
// one that most eyes can (Okabe and Ito, Color Universal Design). Colours are
// numbers of the 256 colour palette; a program that knows its terminal has fewer
// maps them down.
var (
	Dark  = Theme{Faint: "38;5;246", Strong: "1", Accent: "38;5;75", Warn: "38;5;215", Alarm: "1;7;38;5;215"}
	Mono  = Theme{Strong: "1", Alarm: "1;7"}
	Light = Theme{Faint: "38;5;241", Strong: "1", Accent: "38;5;25", Warn: "38;5;130", Alarm: "1;7;38;5;130"}
)

// Styled is the line with roles as SGR sequences.
func (l Line) Styled(t *Theme) string {
	var b strings.Builder
	for _, s := range l {
		if sgr := t[s.Role]; sgr != "" && s.Text != "" {
			b.WriteString("\x1b[" + sgr + "m" + s.Text + "\x1b[m")
		} else {
			b.WriteString(s.Text)
		}
	}
	return b.String()
}

// Glyphs are the characters that bars and sparklines are made of.
type Glyphs struct {
	Levels      []rune // of a sparkline, from 0 to the most
	Full, Empty string // of a bar
	Rule        string
	Cut         string // where text was cut off
	Down, Up    string // order of a column
}

// Unicode is for terminals that show UTF-8.
func Unicode() Glyphs {
	return Glyphs{Levels: []rune("▁▂▃▄▅▆▇█"), Full: "█", Empty: "░", Rule: "─", Cut: "…", Down: "▼", Up: "▲"}
}

// ASCII is for all others.
func ASCII() Glyphs {
	return Glyphs{Levels: []rune("_.:-=+*#"), Full: "#", Empty: ".", Rule: "-", Cut: "~", Down: "v", Up: "^"}
}

// spark draws values from 0 to most; a gap where there is none.
func (g *Glyphs) spark(values []float64, most float64) string {
	var b strings.Builder
	for _, v := range values {
		switch {
		case math.IsNaN(v):
			b.WriteByte(' ')
		case most <= 0:
			b.WriteRune(g.Levels[0])
		default:
			n := len(g.Levels)
			b.WriteRune(g.Levels[min(n-1, max(0, int(math.Ceil(v/most*float64(n)))-1))])
		}
	}
	return b.String()
}

// bar draws a share of n columns. What is not nothing shows, and what is not
// everything is not full.
func (g *Glyphs) bar(share float64, n int) Line {
	full := int(math.Round(min(1, max(0, share)) * float64(n)))
	switch {
	case share > 0 && full == 0:
		full = 1
	case share < 1 && full == n:
		full = n - 1
	}
	role := Accent
	if share > nearlyFull {
		role = Warn
	}
	return Line{{strings.Repeat(g.Full, full), role}, faint(strings.Repeat(g.Empty, n-full))}
}
