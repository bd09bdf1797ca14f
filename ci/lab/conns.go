package lab

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"time"
)

// ConnPoint is the broker's memory with some number of idle connections.
type ConnPoint struct {
	Connections int   `json:"connections"`
	RSSBytes    int64 `json:"rss_bytes"`
}

// Conns is the cost of idle subscribed connections.
type Conns struct {
	Points []ConnPoint `json:"points"`
	// Slope is bytes for each connection: the least-squares line through Points.
	Slope float64 `json:"slope_bytes"`
}

// ConnSteps are the gate's numbers of connections. The largest stays below the
// 20,000 descriptors that an ordinary account may open.
var ConnSteps = []int{1_000, 5_000, 10_000, 18_000}

// IdleConnections opens connections step by step, each with one subscription,
// and reads the broker's resident memory once it has settled at each step.
// progress is called after each.
func (l *Lab) IdleConnections(ctx context.Context, steps []int, progress func(ConnPoint)) (*Conns, error) {
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
	c, err := startClient(ctx, "holder", l.Loadgen, []string{"lean", "hold", "--addr", s.addr, "--topic", topic})
	if err != nil {
		return nil, fmt.Errorf("%w; the broker's last words: %s", err, s.stderr)
	}
	defer c.close()
	var out Conns
	for _, n := range steps {
		if err := c.send(fmt.Sprintf("hold %d", n)); err != nil {
			return nil, err
		}
		var held struct {
			Connections int `json:"connections"`
		}
		if err := c.answer(ctx, &held); err != nil {
			return nil, fmt.Errorf("%w; the broker's last words: %s", err, s.stderr)
		}
		if held.Connections != n {
			return nil, fmt.Errorf("%d connections held, %d asked for", held.Connections, n)
		}
		rss, err := settledRSS(ctx, s)
		if err != nil {
			return nil, err
		}
		p := ConnPoint{n, rss}
		out.Points = append(out.Points, p)
		if progress != nil {
			progress(p)
		}
	}
	out.Slope = slope(out.Points)
	c.close()
	return &out, s.signal(syscall.SIGTERM, stopTimeout)
}

// settledRSS waits until the resident set has not moved by more than 16 KiB
// for half a second, at most five seconds.
func settledRSS(ctx context.Context, s *server) (int64, error) {
	const step, still, most = 100 * time.Millisecond, 5, 50
	last, err := s.metrics.ResidentBytes()
	if err != nil {
		return 0, err
	}
	for same, i := 0, 0; same < still && i < most; i++ {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(step):
		}
		now, err := s.metrics.ResidentBytes()
		if err != nil {
			return 0, err
		}
		if d := now - last; d > 16<<10 || d < -16<<10 {
			last, same = now, 0
			continue
		}
		same++
	}
	return s.metrics.ResidentBytes()
}

// slope is that of the least-squares line.
func slope(p []ConnPoint) float64 {
	var n, sx, sy, sxx, sxy float64
	for _, v := range p {
		x, y := float64(v.Connections), float64(v.RSSBytes)
		n, sx, sy, sxx, sxy = n+1, sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	d := n*sxx - sx*sx
	if d == 0 {
		return 0
	}
	return (n*sxy - sx*sy) / d
}
