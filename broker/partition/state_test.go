package partition

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

var update = flag.Bool("update", false, "rewrite the answers in testdata")

// TestStories runs testdata/*.txt: events of a State and what it says to them.
// A story is made of paragraphs: commands, a line of four hyphens, and one
// answer a command. Everything before the hyphens that begins with # is for the
// reader. `go test -run Stories -update` writes the answers anew.
//
//	state [visibility=durable|accepted] [start=0] [end=0] [durable=0] [time=0]
//	produce [id=N [epoch=N] [seq=N]] [count=1] [span=count] [now=0]
//	written END | synced END | cut FROM | trimmed START | fence
//	reached LEVEL END | marks | snapshot BELOW
//	reopen BELOW    the state of another broker that finds the snapshot below BELOW
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) { tell(t, name) })
	}
}

func tell(t *testing.T, name string) {
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	s := NewState(0, 0, 0, 0, message.AckDurable)
	for i, par := range strings.Split(strings.TrimSpace(string(raw)), "\n\n") {
		commands, want, _ := strings.Cut(par, "----")
		var got []string
		for line := range strings.Lines(commands) {
			if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
				continue
			}
			answer, next, err := obey(s, line)
			if err != nil {
				t.Fatalf("%s: %q: %v", name, line, err)
			}
			got = append(got, answer)
			s = next
		}
		if i > 0 {
			out.WriteString("\n")
		}
		out.WriteString(strings.TrimSpace(commands) + "\n")
		if len(got) == 0 {
			continue
		}
		text := strings.Join(got, "\n") + "\n"
		fmt.Fprintf(&out, "----\n%s", text)
		if !*update && strings.TrimSpace(want) != strings.TrimSpace(text) {
			t.Errorf("%s:\n%s----\ngot:\n%swant:%s", name, commands, text, want)
		}
	}
	if *update {
		if err := os.WriteFile(name, []byte(strings.TrimSpace(out.String())+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// command is a line of a story: a verb, words, and named numbers.
type command struct {
	words []string
	named map[string]string
	err   error
}

func (c *command) number(name string, def int64) int64 {
	text, ok := c.named[name]
	if !ok {
		return def
	}
	delete(c.named, name)
	n, err := strconv.ParseInt(text, 0, 64)
	c.err = cmp.Or(c.err, err)
	return n
}

func (c *command) word(i int) string {
	if i >= len(c.words) {
		c.err = cmp.Or(c.err, errors.New("a word is missing"))
		return ""
	}
	return c.words[i]
}

func (c *command) offset(i int) message.Offset {
	n, err := strconv.ParseInt(c.word(i), 10, 64)
	c.err = cmp.Or(c.err, err)
	return message.Offset(n)
}

func (c *command) level(text string) message.AckLevel {
	l, err := message.ParseAckLevel(text)
	c.err = cmp.Or(c.err, err)
	return l
}

func obey(s *State, line string) (answer string, next *State, err error) {
	c := command{named: map[string]string{}}
	for _, w := range strings.Fields(line) {
		if k, v, ok := strings.Cut(w, "="); ok {
			c.named[k] = v
		} else {
			c.words = append(c.words, w)
		}
	}
	answer = "ok"
	switch c.word(0) {
	case "state":
		v := message.AckDurable
		if text, ok := c.named["visibility"]; ok {
			v = c.level(text)
			delete(c.named, "visibility")
		}
		end := message.Offset(c.number("end", 0))
		s = NewState(message.Offset(c.number("start", 0)), end, message.Offset(c.number("durable", int64(end))), c.number("time", 0), v)
	case "produce":
		e := message.Envelope{ProducerID: uint64(c.number("id", 0)), ProducerEpoch: uint16(c.number("epoch", 0)),
			BaseSequence: uint32(c.number("seq", 0)), Count: uint32(c.number("count", 1))}
		e.LastOffsetDelta = uint32(c.number("span", int64(e.Count))) - 1
		a, err := s.Admit(&e, c.number("now", 0))
		switch {
		case err != nil:
			answer = tag(err)
		case a.Duplicate:
			answer = fmt.Sprintf("duplicate of [%d, %d) at %d", a.Base, a.End, a.Time)
		default:
			answer = fmt.Sprintf("[%d, %d) at %d", a.Base, a.End, a.Time)
		}
	case "written":
		s.Written(c.offset(1))
	case "synced":
		s.Synced(c.offset(1))
	case "cut":
		s.Cut(c.offset(1))
	case "trimmed":
		s.Trimmed(c.offset(1))
	case "fence":
		s.Fence(errFenced(errors.New(strings.Join(c.words[1:], " "))))
	case "reached":
		answer = fmt.Sprint(s.Reached(c.level(c.word(1)), c.offset(2)))
	case "marks":
		answer = fmt.Sprintf("start=%d durable=%d written=%d next=%d visible=%d needs-sync=%v",
			s.start, s.durable, s.written, s.next, s.Visible(), s.NeedsSync())
	case "snapshot":
		answer = describe(s, c.offset(1))
	case "reopen":
		below := c.offset(1)
		n := NewState(s.start, below, below, 0, s.visibility)
		if err := n.LoadSnapshot(s.AppendSnapshot(nil, below)); err != nil {
			return "", nil, err
		}
		s = n
	default:
		err = errors.New("unknown command")
	}
	for k := range c.named {
		c.err = cmp.Or(c.err, fmt.Errorf("unknown argument %q", k))
	}
	return answer, s, cmp.Or(err, c.err)
}

// tag is an error as stories show it: its code, its field and what it says.
func tag(err error) string {
	f := fault.Find(err)
	if f == nil {
		return "untyped error: " + err.Error()
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s", f.Code, f.Field)) + ": " + f.Detail
}

// describe reads a snapshot as a recovery would and lists what is in it.
func describe(s *State, below message.Offset) string {
	n := NewState(0, 0, 0, 0, message.AckAccepted)
	if err := n.LoadSnapshot(s.AppendSnapshot(nil, below)); err != nil {
		return err.Error()
	}
	var out []string
	for id := uint64(1); len(out) < len(n.producers.by); id++ {
		p := n.producers.by[id]
		if p == nil {
			continue
		}
		text := fmt.Sprintf("producer %d:", id)
		for i := range p.last[:p.n] {
			b := &p.last[i]
			text += fmt.Sprintf(" epoch %d seq %d..%d at [%d, %d)", b.epoch, b.sequence, b.next(), b.base, b.end())
		}
		out = append(out, text)
	}
	return strings.Join(append(out, fmt.Sprintf("time %d", n.lastTime)), "\n")
}
