package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/monitor"
	"github.com/portask/portask/broker/monitor/top"
)

// fakeAdmin answers /stats of a broker that takes 1000 messages between two
// looks.
func fakeAdmin(t *testing.T) (addr string, gone *atomic.Bool) {
	gone = new(atomic.Bool)
	var looks atomic.Uint64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if gone.Load() || r.URL.Path != "/stats" {
			http.Error(w, "gone", http.StatusNotFound)
			return
		}
		n := looks.Add(1)
		json.NewEncoder(w).Encode(monitor.Report{Node: "fake", Uptime: time.Duration(n) * time.Second, Ready: true,
			Totals: monitor.Totals{MessagesIn: 1000 * n}, Topics: []monitor.Topic{{Name: "evil\x1b[2J", MessagesStored: 1000 * n}}})
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), gone
}

func TestTopOnce(t *testing.T) {
	addr, gone := fakeAdmin(t)
	g := &globals{output: "table", timeout: patience, server: "127.0.0.1:7474"}
	o := &topFlags{admin: addr, interval: topEveryMin, order: "rate", size: "100x20"}
	o.once = true
	var out bytes.Buffer
	if err := runTop(t.Context(), g, o, nil, &out); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); !strings.Contains(s, "fake") || !strings.Contains(s, "1000 msg/s") || !strings.Contains(s, "evil?[2J") || strings.Contains(s, "quit") || strings.Contains(s, "\x1b") {
		t.Errorf("a frame:\n%s", s)
	}
	g.output = "json"
	out.Reset()
	if err := runTop(t.Context(), g, o, nil, &out); err != nil {
		t.Fatal(err)
	}
	var r top.Rates
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.In.Messages != 1000 || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("%v %s", err, out.String())
	}
	gone.Store(true)
	if err := runTop(t.Context(), g, o, nil, &out); fault.CodeOf(err) != fault.ProtocolViolation {
		t.Errorf("no admin listener: %v", err)
	}
}

// TestTopLines: a line for each interval, one for a broker that is gone too, until
// the context ends.
func TestTopLines(t *testing.T) {
	for _, output := range []string{"table", "json"} {
		addr, gone := fakeAdmin(t)
		g := &globals{output: output, timeout: patience, server: "127.0.0.1:7474"}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r, w := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			ended <- runTop(ctx, g, &topFlags{admin: addr, interval: topEveryMin, order: "rate"}, nil, w)
			w.Close()
		}()
		s := bufio.NewScanner(r)
		want := func(text string) {
			t.Helper()
			for s.Scan() {
				if strings.Contains(s.Text(), text) {
					return
				}
			}
			t.Fatalf("%s: no line with %q", output, text)
		}
		if output == "json" {
			want(`"messages_per_s":1000`)
			gone.Store(true)
			want(`"code":"protocol-violation"`)
			gone.Store(false)
			want(`"messages_per_s":1000`)
		} else {
			want("in 1000 msg/s")
			gone.Store(true)
			want("no answer: is 404")
			gone.Store(false)
			want("in 1000 msg/s")
		}
		cancel()
		for s.Scan() {
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", output, err)
		}
	}
}

// TestTopBroker: a frame and rates of a real broker that is produced to, until it
// is killed.
func TestTopBroker(t *testing.T) {
	dir := t.TempDir()
	file, settings := filepath.Join(dir, "admin"), filepath.Join(dir, "settings.yaml")
	replace(t, settings, "version: 1\nmonitoring:\n  interval: 100ms\n") // at least two readings of the system between the looks
	p := startProcess(t, "--config", settings, "--data", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0", "--admin-addr-file", file)
	p.until("serving")
	addr, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	g := &globals{output: "table", timeout: patience, server: p.addr}
	c, err := g.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Admin().CreateTopic(t.Context(), client.TopicConfig{Name: "orders", Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	producer, err := c.Producer(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	stop, sending := make(chan struct{}), sync.WaitGroup{}
	sending.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := producer.Send(t.Context(), &message.Message{Value: []byte("hello")}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	o := &topFlags{admin: strings.TrimSpace(string(addr)), interval: 300 * time.Millisecond, order: "rate", size: "120x30", once: true}
	var frame, rates bytes.Buffer
	err = runTop(t.Context(), g, o, nil, &frame)
	g.output = "json"
	err = errors.Join(err, runTop(t.Context(), g, o, nil, &rates))
	close(stop)
	sending.Wait()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"node-1", "disklog", p.addr, "1 producer", "2 partitions", "orders", "produce, durable", "memory", "queues", "goroutines"} {
		if !strings.Contains(frame.String(), text) {
			t.Errorf("no %q in\n%s", text, frame.String())
		}
	}
	var r top.Rates
	if err := json.Unmarshal(rates.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if r.In.Messages <= 0 || r.Stored.Messages <= 0 || r.Acks <= 0 || r.Process.CPUs <= 0 || r.Process.RSSBytes <= 0 || len(r.Topics) != 1 || r.Topics[0].Stored.Messages <= 0 || r.Interval < 300*time.Millisecond {
		t.Errorf("%s", rates.Bytes())
	}
	p.cmd.Process.Kill()
	p.rest.Wait()
	if err := runTop(t.Context(), g, o, nil, io.Discard); exitCode(err) != int(fault.ExitUnreachable) || !strings.Contains(err.Error(), "--admin") {
		t.Errorf("a broker that is gone: %v", err)
	}
}

// TestTopSource: whatever answers, the command gets a typed error, and takes no
// more than a bounded answer.
func TestTopSource(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		code   fault.Code
	}{
		"a web page":  {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, fault.ProtocolViolation},
		"nothing":     {func(http.ResponseWriter, *http.Request) {}, fault.ProtocolViolation},
		"other JSON":  {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"uptime_ns":0}`) }, fault.ProtocolViolation},
		"wrong types": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"uptime_ns":"long"}`) }, fault.ProtocolViolation},
		"a redirection": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}, fault.ProtocolViolation},
		"half an answer": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "{")
		}, fault.ConnectionLost},
		"too much": {func(w http.ResponseWriter, _ *http.Request) {
			for b := bytes.Repeat([]byte(" "), 1<<20); ; {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		}, fault.TooLarge},
		"silence": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, fault.Timeout},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(c.answer)
			defer s.Close()
			timeout := patience
			if c.code == fault.Timeout {
				timeout = 50 * time.Millisecond
			}
			src := newStats(s.Listener.Addr().String(), timeout)
			defer src.close()
			if _, err := src.read(t.Context()); fault.CodeOf(err) != c.code || reason(err) == "" {
				t.Errorf("%v, want %v", err, c.code)
			}
		})
	}
	src := newStats("127.0.0.1:1", patience)
	if _, err := src.read(t.Context()); fault.CodeOf(err) != fault.ConnectionLost || reason(err) != "connection refused" {
		t.Errorf("nobody: %v (%s)", err, reason(err))
	}
}

func TestTopFlags(t *testing.T) {
	for _, c := range []struct {
		o      topFlags
		server string
		want   string // of the error, or the admin address
	}{
		{topFlags{}, "127.0.0.1:7474", "127.0.0.1:7475"},
		{topFlags{}, "[::1]:7474", "[::1]:7475"},
		{topFlags{admin: "a:1"}, "nonsense", "a:1"},
		{topFlags{}, "nonsense", "--server"},
		{topFlags{}, "a:65535", "--server"},
		{topFlags{admin: "a"}, "a:1", "--admin"},
		{topFlags{interval: time.Millisecond}, "a:1", "--interval"},
		{topFlags{interval: 2 * time.Hour}, "a:1", "--interval"},
		{topFlags{order: "size"}, "a:1", "--sort"},
		{topFlags{size: "80"}, "a:1", "--size"},
		{topFlags{size: "10x10"}, "a:1", "--size"},
		{topFlags{size: "80x-1"}, "a:1", "--size"},
		{topFlags{size: "99999x99999"}, "a:1", "--size"},
	} {
		if c.o.interval == 0 {
			c.o.interval = time.Second
		}
		if c.o.order == "" {
			c.o.order = "lag"
		}
		v, err := c.o.view(&globals{server: c.server})
		if err != nil && (exitCode(err) != exitUsage || !strings.Contains(err.Error(), c.want)) || err == nil && (c.o.admin != c.want || v.Order != top.ByLag) {
			t.Errorf("%+v: %v, want %s", c.o, err, c.want)
		}
	}
	for env, want := range map[string]bool{"": true, "C": false, "POSIX": false, "de_DE.UTF-8": true, "C.utf8": true, "de_DE.ISO-8859-1": false} {
		if got := speaksUnicode(func(name string) string { return map[string]string{"LC_CTYPE": env, "LANG": "en_US.UTF-8"}[name] }); got != want {
			t.Errorf("LC_CTYPE=%s: %v", env, got)
		}
	}
}

// TestTopScreen drives the model as a terminal does: figures, keys, a broker that
// goes away and comes back, another size.
func TestTopScreen(t *testing.T) {
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	s := &screen{ctx: t.Context(), src: newStats("127.0.0.1:1", time.Second), theme: top.Mono, clock: func() time.Time { return now },
		v: &top.View{Every: time.Second, Window: topWindow, Width: 80, Height: 24, Keys: true, Glyphs: top.Unicode()}}
	n := uint64(0)
	report := func() *monitor.Report {
		n++
		r := &monitor.Report{Node: "node-1", Uptime: time.Duration(n) * time.Second, Ready: true, Totals: monitor.Totals{MessagesIn: 500 * n}}
		for i := range 40 {
			r.Topics = append(r.Topics, monitor.Topic{Name: fmt.Sprintf("t%02d", i), MessagesStored: uint64(i) * n, Bytes: int64(40 - i)})
		}
		return r
	}
	send := func(msg tea.Msg) tea.Cmd { _, cmd := s.Update(msg); return cmd }
	key := func(k tea.Key) tea.Cmd { return send(tea.KeyPressMsg(k)) }
	press := func(text string) tea.Cmd { return key(tea.Key{Text: text, Code: []rune(text)[0]}) }
	shows := func(yes bool, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if content := s.View().Content; strings.Contains(content, text) != yes {
				t.Fatalf("%q is shown: %v\n%s", text, !yes, content)
			}
		}
	}
	if s.Init() == nil || !s.asking {
		t.Fatal("it does not ask at once")
	}
	shows(true, "waiting for the first figures")
	send(looked{report: report()})
	shows(true, "node-1", "t00", "(")
	now = now.Add(time.Second)
	if send(ticked{s.turn}) == nil || !s.asking {
		t.Fatal("it does not ask again")
	}
	send(looked{report: report()})
	shows(true, "500", "12:00:01", "t39")
	shows(false, "t00")

	// Sorting and scrolling.
	press("b")
	shows(true, "t00", "BYTES▼")
	press("b")
	shows(true, "t39", "BYTES▲")
	press("i")
	shows(true, "t00")
	press("n")
	shows(true, "TOPIC▲", "t00")
	key(tea.Key{Code: tea.KeyEnd})
	shows(true, "t39")
	shows(false, "t00")
	key(tea.Key{Code: tea.KeyUp})
	shows(false, "t39")
	key(tea.Key{Code: tea.KeyPgUp})
	key(tea.Key{Code: tea.KeyHome})
	shows(true, "t00")
	key(tea.Key{Code: tea.KeyDown})
	shows(false, "t00 ")
	press("?")
	shows(true, "figures stay as they are")
	key(tea.Key{Code: tea.KeyEscape})
	shows(false, "figures stay as they are")

	// An interval that is changed leaves no second timer behind.
	old := s.turn
	if press("+") == nil || s.v.Every != 2*time.Second || send(ticked{old}) != nil {
		t.Fatalf("every %v", s.v.Every)
	}
	press("-")
	press("-")
	if s.v.Every != 500*time.Millisecond {
		t.Fatalf("every %v", s.v.Every)
	}

	// Paused, nothing changes and nobody is asked.
	press("p")
	before := s.View().Content
	now = now.Add(time.Minute)
	send(ticked{s.turn})
	if s.asking || s.View().Content != before || !strings.Contains(before, "PAUSED") {
		t.Fatal("it is not paused")
	}
	if press("p") == nil || !s.asking {
		t.Fatal("it does not ask after the pause")
	}
	send(looked{report: report()})

	// The broker goes: silent at first, then refusing.
	send(ticked{s.turn})
	now = now.Add(3 * time.Second)
	send(ticked{s.turn})
	shows(true, "STALE", " by 3s", "no answer yet", "t01")
	_, err := s.src.read(t.Context())
	send(looked{err: err})
	shows(true, "connection refused")
	send(ticked{s.turn})
	n = 0
	send(looked{report: report()})
	shows(false, "STALE")
	shows(true, "restarted")

	send(tea.WindowSizeMsg{Width: 150, Height: 40})
	shows(true, "VISIBLE")
	if v := s.View(); !v.AltScreen || strings.Count(v.Content, "\n") != 39 {
		t.Errorf("%d lines", strings.Count(v.Content, "\n")+1)
	}
	send(tea.WindowSizeMsg{Width: 1, Height: 1})
	s.View()
	for _, quit := range []tea.Cmd{press("q"), key(tea.Key{Code: 'c', Mod: tea.ModCtrl}), key(tea.Key{Code: tea.KeyEscape})} {
		if quit == nil || quit() != (tea.QuitMsg{}) {
			t.Error("it does not end")
		}
	}
}
