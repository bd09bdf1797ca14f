package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/term"

	"github.com/portask/portask/broker/monitor"
	"github.com/portask/portask/broker/monitor/top"
)

// topScreen is the live view, until its user or ctx ends it.
func topScreen(ctx context.Context, src *stats, v *top.View, stdin io.Reader, terminal term.File) error {
	v.Keys = true
	v.Height = 24
	if w, h, err := term.GetSize(terminal.Fd()); err == nil && w > 0 && h > 0 {
		v.Width, v.Height = w, h
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a look that is under way ends with the screen
	s := &screen{ctx: ctx, src: src, v: v, theme: top.Dark, clock: time.Now}
	if os.Getenv("NO_COLOR") != "" {
		s.theme, s.plain = top.Mono, true
	}
	_, err := tea.NewProgram(s, tea.WithContext(ctx), tea.WithInput(stdin), tea.WithOutput(terminal), tea.WithoutSignalHandler()).Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, tea.ErrInterrupted) {
		return nil
	}
	return err
}

// screen is the Model of the live view. The program's goroutine owns it; only
// commands run elsewhere, and touch ctx and src alone.
type screen struct {
	ctx   context.Context
	src   *stats
	v     *top.View
	theme top.Theme
	plain bool // no colours
	clock func() time.Time

	asking bool      // a look is under way
	asked  time.Time // since then
	last   time.Time // of the last Report
	turn   int       // of the timer that counts; others are of an interval that was changed
}

type (
	looked struct {
		report *monitor.Report
		err    error
	}
	ticked struct{ turn int }
)

// noAnswerAfter is how long a look may take before the figures are called stale.
const noAnswerAfter = 2 * time.Second

// Init implements tea.Model.
func (s *screen) Init() tea.Cmd { return tea.Batch(s.look(), s.tick(), tea.RequestBackgroundColor) }

// look asks the broker, unless it is being asked.
func (s *screen) look() tea.Cmd {
	if s.asking {
		return nil
	}
	s.asking, s.asked = true, s.clock()
	ctx, src := s.ctx, s.src
	return func() tea.Msg {
		r, err := src.read(ctx)
		return looked{r, err}
	}
}

// tick starts the timer anew.
func (s *screen) tick() tea.Cmd {
	s.turn++
	turn := s.turn
	return tea.Tick(s.v.Every, func(time.Time) tea.Msg { return ticked{turn} })
}

// Update implements tea.Model.
func (s *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	v := s.v
	switch m := msg.(type) {
	case looked:
		s.asking = false
		if v.Paused { // it was asked before
			return s, nil
		}
		v.Clock = s.clock()
		if m.err != nil {
			v.Lose(reason(m.err), v.Clock.Sub(s.last))
			return s, nil
		}
		v.Observe(m.report)
		s.last = v.Clock
	case ticked:
		if m.turn != s.turn {
			return s, nil
		}
		if v.Paused {
			return s, s.tick()
		}
		v.Clock = s.clock()
		if s.asking && v.Clock.Sub(s.asked) > noAnswerAfter {
			v.Lose("no answer yet", v.Clock.Sub(s.last))
		}
		return s, tea.Batch(s.look(), s.tick())
	case tea.WindowSizeMsg:
		v.Width, v.Height = m.Width, m.Height
	case tea.BackgroundColorMsg:
		if !s.plain && !m.IsDark() {
			s.theme = top.Light
		}
	case tea.KeyPressMsg:
		return s, s.key(m.String())
	}
	return s, nil
}

// steps are what + and - choose from.
var steps = []time.Duration{
	topEveryMin, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute,
}

// key does what was pressed.
func (s *screen) key(key string) tea.Cmd {
	v := s.v
	page := max(1, v.Height/2)
	switch key {
	case "q", "ctrl+c", "esc":
		if v.Help && key == "esc" {
			v.Help = false
			return nil
		}
		return tea.Quit
	case "ctrl+z":
		return tea.Suspend
	case "?", "h":
		v.Help = !v.Help
	case "p", "space":
		v.Paused = !v.Paused
		if !v.Paused {
			return s.look()
		}
	case "r":
		s.sort(top.ByRate)
	case "b":
		s.sort(top.ByBytes)
	case "l":
		s.sort(top.ByLag)
	case "n":
		s.sort(top.ByName)
	case "i":
		v.Turned = !v.Turned
	case "up", "k":
		v.Scroll--
	case "down", "j":
		v.Scroll++
	case "pgup":
		v.Scroll -= page
	case "pgdown":
		v.Scroll += page
	case "home":
		v.Scroll = 0
	case "end":
		v.Scroll = 1 << 30 // Frame knows how many there are
	case "+", "=":
		return s.pace(1)
	case "-":
		return s.pace(-1)
	}
	return nil
}

// sort chooses an order; the same again turns it round.
func (s *screen) sort(o top.Order) {
	s.v.Turned = s.v.Order == o && !s.v.Turned
	s.v.Order, s.v.Scroll = o, 0
}

// pace takes the next longer or shorter interval.
func (s *screen) pace(by int) tea.Cmd {
	old := s.v.Every
	if by > 0 {
		for _, d := range steps {
			if d > old {
				s.v.Every = d
				break
			}
		}
	} else {
		for _, d := range steps {
			if d < old {
				s.v.Every = d
			}
		}
	}
	if s.v.Every == old {
		return nil
	}
	return s.tick()
}

// View implements tea.Model.
func (s *screen) View() tea.View {
	var b strings.Builder
	for i, l := range s.v.Frame() {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(l.Styled(&s.theme))
	}
	view := tea.NewView(b.String())
	view.AltScreen = true
	view.WindowTitle = "portask top"
	return view
}
