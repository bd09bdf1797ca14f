package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/monitor"
	"github.com/portask/portask/broker/monitor/top"
)

// topFlags are those of `portask top`.
type topFlags struct {
	admin    string
	interval time.Duration
	order    string
	once     bool
	size     string
}

// Bounds of --interval. The broker reads the machine once a second by default.
const (
	topEveryMin = 100 * time.Millisecond
	topEveryMax = time.Hour
)

// topWindow is the time that sparklines cover.
const topWindow = 3 * time.Minute

// statsBytesMax bounds what is read as a Report: four times what a broker sends.
const statsBytesMax = 4 << 20

func newTop(g *globals) *cobra.Command {
	var o topFlags
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch a running broker",
		Long: `Show what a broker does: messages and bytes a second, latencies, processors, memory, queues and topics, and what is
wrong in words. The figures are those of /stats on the broker's admin listener.

On a terminal the screen is live; ? explains it. Where standard output is no terminal, there is one line of text for each
interval. --once prints a frame as plain text and ends; --output json prints rates as a JSON object a line.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runTop(cmd.Context(), g, &o, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.admin, "admin", "", "address of the admin listener; the port above --server's if it is not given")
	f.DurationVarP(&o.interval, "interval", "i", time.Second, "time between two looks")
	f.StringVar(&o.order, "sort", top.ByRate.String(), "order of topics: "+strings.Join(top.Orders(), ", "))
	f.BoolVar(&o.once, "once", false, "print one frame and end")
	f.StringVar(&o.size, "size", "", "size of the frame of --once, as 120x40; 80 columns and as many lines as it takes if it is not given")
	return cmd
}

// view checks the flags.
func (o *topFlags) view(g *globals) (*top.View, error) {
	if o.interval < topEveryMin || o.interval > topEveryMax {
		return nil, usagef("--interval %v: want %v to %v", o.interval, topEveryMin, topEveryMax)
	}
	v := &top.View{Every: o.interval, Window: topWindow, Width: 80, Glyphs: top.Unicode()}
	if !speaksUnicode(os.Getenv) {
		v.Glyphs = top.ASCII()
	}
	var ok bool
	if v.Order, ok = top.ParseOrder(o.order); !ok {
		return nil, usagef("--sort %q: want %s", o.order, strings.Join(top.Orders(), ", "))
	}
	if o.size != "" {
		w, h, _ := strings.Cut(o.size, "x")
		var err1, err2 error
		v.Width, err1 = strconv.Atoi(w)
		v.Height, err2 = strconv.Atoi(h)
		if err := errors.Join(err1, err2); err != nil || v.Width < top.WidthMin || v.Width > 1000 || v.Height < top.HeightMin || v.Height > 1000 {
			return nil, usagef("--size %q: want columns and lines, from %dx%d to 1000x1000", o.size, top.WidthMin, top.HeightMin)
		}
	}
	var err error
	o.admin, err = adminAddress(g, o.admin)
	return v, err
}

// speaksUnicode reports whether the locale says anything against it (POSIX, 8.2:
// the first of these that is set decides). None is set in many containers, whose
// terminals speak UTF-8 all the same.
func speaksUnicode(env func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := env(name); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return true
}

func runTop(ctx context.Context, g *globals, o *topFlags, stdin io.Reader, stdout io.Writer) error {
	v, err := o.view(g)
	if err != nil {
		return err
	}
	src := newStats(o.admin, g.timeout)
	defer src.close()
	terminal, _ := stdout.(term.File)
	live := terminal != nil && term.IsTerminal(terminal.Fd()) && os.Getenv("TERM") != "dumb"
	switch {
	case o.once:
		return topOnce(ctx, g, src, v, stdout)
	case g.output == "json" || !live:
		return topLines(ctx, g, src, v, stdout)
	}
	return topScreen(ctx, src, v, stdin, terminal)
}

// stats reads Reports of one broker.
type stats struct {
	addr string
	http *http.Client
}

// newStats makes a source whose requests take at most timeout. It follows no
// redirection and no proxy: what is asked is one listener, by its address.
func newStats(addr string, timeout time.Duration) *stats {
	return &stats{addr: addr, http: &http.Client{
		Timeout:       timeout,
		Transport:     &http.Transport{MaxIdleConns: 1, MaxResponseHeaderBytes: 64 << 10, IdleConnTimeout: 2 * topEveryMax},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (s *stats) close() { s.http.CloseIdleConnections() }

// read asks for the Report.
//
// Errors: fault.ConnectionLost, fault.Timeout, fault.TooLarge for an answer beyond
// statsBytesMax, fault.ProtocolViolation for one that is no Report, the context's.
func (s *stats) read(ctx context.Context) (*monitor.Report, error) {
	op := "read figures of " + s.addr
	u := url.URL{Scheme: "http", Host: s.addr, Path: "/stats"}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fault.New(fault.Invalid, op).WithField("admin").WithCause(err)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, s.failed(ctx, op, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, statsBytesMax+1))
	switch {
	case err != nil:
		return nil, s.failed(ctx, op, err)
	case len(b) > statsBytesMax:
		return nil, fault.New(fault.TooLarge, op).WithField("answer").WithLimit(int64(len(b)), statsBytesMax)
	case resp.StatusCode != http.StatusOK:
		return nil, fault.New(fault.ProtocolViolation, op).WithField("status").WithDetail("is %d: no admin listener of a broker?", resp.StatusCode)
	}
	r := new(monitor.Report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fault.New(fault.ProtocolViolation, op).WithDetail("no report of a broker").WithCause(err)
	}
	if r.Uptime <= 0 {
		return nil, fault.New(fault.ProtocolViolation, op).WithField("uptime_ns").WithDetail("is %d: no report of a broker", r.Uptime)
	}
	return r, nil
}

func (s *stats) failed(ctx context.Context, op string, err error) error {
	var timeout net.Error
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &timeout) && timeout.Timeout():
		return fault.New(fault.Timeout, op).WithDetail("no answer for %v", s.http.Timeout)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the URL, which the operation names
	}
	e := fault.New(fault.ConnectionLost, op).WithCause(err)
	if errors.Is(err, syscall.ECONNREFUSED) {
		e.WithDetail("no admin listener there; --admin names another, and the broker's log says where it is")
	}
	return e
}

// reason is an error of read in few words, for a line of a screen.
func reason(err error) string {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no.Error()
	}
	if f := fault.Find(err); f != nil && f.Detail != "" {
		return f.Detail
	}
	return err.Error()
}

// topOnce prints one frame: two looks, an interval apart, make rates.
func topOnce(ctx context.Context, g *globals, src *stats, v *top.View, stdout io.Writer) error {
	for i := range 2 {
		if i > 0 && !wait(ctx, v.Every) {
			return ctx.Err()
		}
		r, err := src.read(ctx)
		if err != nil {
			return err
		}
		v.Observe(r)
	}
	if g.output == "json" {
		return json.NewEncoder(stdout).Encode(&v.Rates)
	}
	v.Clock = time.Now()
	_, err := io.WriteString(stdout, v.Text())
	return err
}

// topLines prints a line for each interval, until ctx ends. A broker that does
// not answer is a line too.
func topLines(ctx context.Context, g *globals, src *stats, v *top.View, stdout io.Writer) error {
	enc := json.NewEncoder(stdout)
	enc.SetEscapeHTML(false)
	for {
		r, err := src.read(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		v.Clock = time.Now()
		first := v.Report == nil
		if err != nil {
			v.Lose(reason(err), 0)
		} else {
			v.Observe(r)
		}
		switch {
		case err == nil && first: // no rates yet
		case g.output != "json":
			_, err = fmt.Fprintln(stdout, v.Summary())
		case err != nil:
			err = enc.Encode(struct {
				Time  time.Time `json:"time"`
				Error string    `json:"error"`
				Code  string    `json:"code"`
			}{v.Clock.UTC(), v.Gone, fault.CodeOf(err).String()})
		default:
			err = enc.Encode(&v.Rates)
		}
		if err != nil {
			return err
		}
		if !wait(ctx, v.Every) {
			return ctx.Err()
		}
	}
}

// wait waits for d and reports whether ctx has not ended.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
