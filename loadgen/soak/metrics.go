package soak

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// pollEvery is how often a target's metrics are read, answerMax how much of
	// an answer, answerTime how long it may take.
	pollEvery  = 2 * time.Second
	answerMax  = 4 << 20
	answerTime = 5 * time.Second
)

// Process is what a target says of its own process.
type Process struct{ RSS, FDs, Goroutines float64 }

// unknown is a Process of which nothing is known.
var unknown = Process{math.NaN(), math.NaN(), math.NaN()}

// Poller reads a target's metrics, in the text format of Prometheus, under the
// names that its Go client gives them.
type Poller struct {
	url    string
	client http.Client
	last   atomic.Pointer[Process]
}

// NewPoller reads from url, such as http://127.0.0.1:7475/metrics, once: the
// error says why it cannot be used.
func NewPoller(ctx context.Context, url string) (*Poller, error) {
	p := &Poller{url: url, client: http.Client{Timeout: answerTime}}
	x, err := p.read(ctx)
	if err != nil {
		return nil, err
	}
	if math.IsNaN(x.Goroutines) {
		return nil, fmt.Errorf("%s has no go_goroutines", url)
	}
	p.last.Store(&x)
	return p, nil
}

// Run reads until ctx ends.
func (p *Poller) Run(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	defer p.client.CloseIdleConnections()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		x, err := p.read(ctx)
		if err != nil {
			x = unknown // the target may be busy; a gap is no value
		}
		p.last.Store(&x)
	}
}

// Last is what was read last; NaN where nothing was.
func (p *Poller) Last() Process {
	if p == nil {
		return unknown
	}
	return *p.last.Load()
}

func (p *Poller) read(ctx context.Context) (Process, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, nil)
	if err != nil {
		return unknown, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return unknown, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return unknown, fmt.Errorf("%s: %s", p.url, resp.Status)
	}
	return parse(io.LimitReader(resp.Body, answerMax))
}

// parse takes the three values out of a page of metrics.
func parse(r io.Reader) (Process, error) {
	x := unknown
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if !ok {
			continue
		}
		var to *float64
		switch name {
		case "go_goroutines":
			to = &x.Goroutines
		case "process_open_fds":
			to = &x.FDs
		case "process_resident_memory_bytes":
			to = &x.RSS
		default:
			continue
		}
		value, _, _ = strings.Cut(value, " ") // a time may follow
		if v, err := strconv.ParseFloat(value, 64); err == nil && v >= 0 && !math.IsInf(v, 0) {
			*to = v
		}
	}
	return x, lines.Err()
}
