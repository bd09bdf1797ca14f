package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ConnPoint is the broker's memory with some number of idle connections.
type ConnPoint struct {
	Connections int   `json:"connections"`
	RSSBytes    int64 `json:"rss_bytes"`
	// OwnRSSBytes is loadgen's, which must not be what limits the number.
	OwnRSSBytes int64 `json:"own_rss_bytes"`
}

// Conns is the cost of idle subscribed connections, as `loadgen conns` tells it.
type Conns struct {
	Points []ConnPoint `json:"points"`
	// Slope is bytes for each connection: the least-squares line through Points.
	Slope    float64 `json:"slope_bytes"`
	OwnSlope float64 `json:"own_slope_bytes"` // of loadgen
}

// ConnSteps are the gate's numbers of connections. The largest stays below the
// 20,000 descriptors that an ordinary account may open.
var ConnSteps = []int{1_000, 5_000, 10_000, 18_000}

// IdleConnections has loadgen open connections step by step, each with one
// subscription, and read the broker's resident memory at each step, once it has
// settled.
func (l *Lab) IdleConnections(ctx context.Context, steps []int) (*Conns, error) {
	dir, remove, err := l.scratch()
	if err != nil {
		return nil, err
	}
	defer remove()
	s, err := l.broker(ctx, filepath.Join(dir, "data"), filepath.Join(dir, "addr"))
	if err != nil {
		return nil, err
	}
	defer s.kill()
	if err := l.createTopic(ctx, s.addr, "durable"); err != nil {
		return nil, err
	}
	texts := make([]string, len(steps))
	for i, n := range steps {
		texts[i] = strconv.Itoa(n)
	}
	var stdout bytes.Buffer
	c, err := start(ctx, "loadgen conns", l.Loadgen, []string{
		"conns", texts[len(texts)-1], "--steps", strings.Join(texts, ","), "--addr", s.addr, "--topic", topic,
		"--pid", strconv.Itoa(s.cmd.Process.Pid), "--quiet", "--output", "json",
	}, nil, &stdout)
	if err != nil {
		return nil, err
	}
	if <-c.ended; c.err != nil {
		return nil, fmt.Errorf("%w; the broker's last words: %s", c.failed("failed"), s.stderr)
	}
	var out Conns
	if err := json.Unmarshal(stdout.Bytes(), &out); err != nil {
		return nil, fmt.Errorf("loadgen conns: %w", err)
	}
	if n := len(out.Points); n != len(steps) || out.Points[n-1].Connections != steps[len(steps)-1] || out.Slope == 0 {
		return nil, fmt.Errorf("loadgen conns tells of %+v, %v connections were asked for", out, steps)
	}
	return &out, s.signal(syscall.SIGTERM, stopTimeout)
}
