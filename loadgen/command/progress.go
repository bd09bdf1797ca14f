package command

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// progress shows one line at a time: over itself on a terminal, one below
// another elsewhere. Safe for concurrent use.
type progress struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	shown    int // width of what stands on the terminal's line
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

// line replaces the line.
func (p *progress) line(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.terminal {
		fmt.Fprintln(p.w, s)
		return
	}
	fmt.Fprint(p.w, "\r", s, strings.Repeat(" ", max(0, p.shown-len(s))))
	p.shown = len(s)
}

// event is a line that stays.
func (p *progress) event(s string) {
	p.line(s)
	p.end()
}

// end goes to the next line if something stands on this one.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal && p.shown > 0 {
		fmt.Fprintln(p.w)
		p.shown = 0
	}
}
