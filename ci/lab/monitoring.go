package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// MonitoringLoad is what the cost of monitoring is measured under.
type MonitoringLoad struct {
	Load                // WindowBytes and WarmBytes as in a Round; Measured is the length of one run
	Rate  int           // messages a second, in bursts of MonitoringBurst
	Every time.Duration // between two scrapes of /metrics, 0 for none
}

// monitoringBurst is the distance of the bursts that make the rate.
const monitoringBurst = 10 * time.Millisecond

// MonitoringRun is one run of a broker at a given rate.
type MonitoringRun struct {
	On       bool    `json:"on"`
	Messages int64   `json:"messages"`
	Seconds  float64 `json:"seconds"`
	// ServerCPU is in seconds per million messages; Cores the same by time.
	ServerCPU float64 `json:"server_cpu_s_per_million"`
	Cores     float64 `json:"cores"`
	RSS       int64   `json:"server_rss_bytes"`
	Scrapes   int     `json:"scrapes"`
}

// MonitoringResult says what monitoring costs.
type MonitoringResult struct {
	Runs []MonitoringRun `json:"runs"`
	// Ratio is the CPU per message with monitoring over that without, turn by
	// turn.
	Ratio []float64 `json:"ratio"`
	// Share is the part of the samples of a CPU profile of the broker, 0 to 1,
	// whose stack holds code of monitoring; Profiled how much time they are.
	Share    float64       `json:"share"`
	Profiled time.Duration `json:"profiled_ns"`
	Top      string        `json:"-"` // the profile's lines
}

// monitoringCode matches the functions that exist for monitoring's sake: the
// packages, and the few functions of the hot path. The clock readings by which a
// partition knows a slow append, and a loop the time of its batches, are made
// without monitoring too.
const monitoringCode = `broker/monitor\.|monitor/latency\.\(|broker/sysmetrics|gopsutil|client_golang|prometheus/common|hdrhistogram|net/http\.|` +
	`server\.\(\*loop\)\.(publish|counters|recordAcks|recordDelivers|waitedFor)|partition\.\(\*Partition\)\.(moved|visibleSince)`

// Monitoring runs brokers with monitoring off and on by turns, in random order,
// at the same rate, and profiles some more that have it on. A profile has 100
// samples for each second of processor time: the share is as good as their number.
//
// It needs the go command, for `go tool pprof`.
func (l *Lab) Monitoring(ctx context.Context, turns, profiles int, seed uint64, o MonitoringLoad, done func(MonitoringRun)) (MonitoringResult, error) {
	o.setDefaults()
	var res MonitoringResult
	random := rand.New(rand.NewPCG(seed, 0))
	for range turns {
		var pair [2]MonitoringRun
		for _, i := range random.Perm(2) {
			r, _, err := l.monitored(ctx, i == 1, o, false)
			if err != nil {
				return res, err
			}
			pair[i] = r
			res.Runs = append(res.Runs, r)
			done(r)
		}
		res.Ratio = append(res.Ratio, pair[1].ServerCPU/pair[0].ServerCPU)
	}
	var all [][]byte
	for range profiles {
		_, profile, err := l.monitored(ctx, true, o, true)
		if err != nil {
			return res, err
		}
		all = append(all, profile)
	}
	if len(all) == 0 {
		return res, nil
	}
	return res, l.share(ctx, all, &res)
}

// monitored is one run; with profile it also returns a CPU profile of it.
func (l *Lab) monitored(ctx context.Context, on bool, o MonitoringLoad, profile bool) (r MonitoringRun, cpu []byte, err error) {
	r.On = on
	dir, remove, err := l.scratch()
	if err != nil {
		return r, nil, err
	}
	defer remove()
	addrFile, adminFile := filepath.Join(dir, "addr"), filepath.Join(dir, "admin")
	listen := "off"
	if on {
		listen = "127.0.0.1:0"
	}
	s, err := startServer(ctx, "portask", l.Portask, []string{"serve", "--data", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0",
		"--addr-file", addrFile, "--log-level", "warn", "--admin-listen", listen, "--admin-addr-file", adminFile}, addrFile, io.Discard)
	if err != nil {
		return r, nil, err
	}
	defer s.kill()
	if err := l.createTopic(ctx, s.addr, Accepted.Visibility, "--retention-bytes", strconv.Itoa(256<<20)); err != nil {
		return r, nil, err
	}
	p, err := l.clients(ctx, Accepted, s.addr, dir, o.Load)
	if err != nil {
		return r, nil, err
	}
	defer p.close()
	if _, _, err := p.run(ctx, strconv.FormatInt(o.WarmBytes/int64(o.BatchMessages*o.MessageBytes)+1, 10)); err != nil {
		return r, nil, err
	}
	visits, end := context.WithCancel(ctx)
	defer end()
	scraped := make(chan error, 1)
	profiled := make(chan error, 1)
	if on {
		b, err := os.ReadFile(adminFile)
		if err != nil {
			return r, nil, err
		}
		base := "http://" + strings.TrimSpace(string(b))
		go func() { scraped <- scrape(visits, base, o.Every, &r.Scrapes) }()
		if profile {
			go func() {
				var err error
				cpu, err = get(ctx, base+"/debug/pprof/profile?seconds="+strconv.Itoa(max(1, int(o.Measured.Seconds()))))
				profiled <- err
			}()
		}
	}
	if err := paced(ctx, &r, s, p, o); err != nil {
		return r, nil, err
	}
	end()
	if on {
		if err := <-scraped; err != nil {
			return r, nil, err
		}
		if profile {
			if err := <-profiled; err != nil {
				return r, nil, err
			}
		}
	}
	p.close()
	return r, cpu, s.signal(syscall.SIGTERM, stopTimeout)
}

// paced sends bursts on a schedule that a late one does not move.
func paced(ctx context.Context, r *MonitoringRun, s *server, p *pair, o MonitoringLoad) error {
	cpu0, err := s.metrics.CPUTime()
	if err != nil {
		return err
	}
	began := time.Now()
	for due := began; time.Since(began) < o.Measured; {
		if d := time.Until(due); d > 0 {
			time.Sleep(d)
		}
		// What is owed by now, in whole batches.
		owed := int64(float64(o.Rate)*(time.Since(began)+monitoringBurst).Seconds()) - r.Messages
		if batches := owed / int64(o.BatchMessages); batches > 0 {
			_, consumed, err := p.run(ctx, strconv.FormatInt(batches, 10))
			if err != nil {
				return err
			}
			r.Messages += consumed.Messages
		}
		due = due.Add(monitoringBurst)
	}
	after, err := s.metrics.Sample()
	if err != nil {
		return err
	}
	r.Seconds = time.Since(began).Seconds()
	cpu := (after.CPU - cpu0).Seconds()
	r.ServerCPU, r.Cores, r.RSS = cpu/(float64(r.Messages)/1e6), cpu/r.Seconds, after.RSSBytes
	return nil
}

// scrape asks for /metrics as Prometheus does, until ctx ends.
func scrape(ctx context.Context, base string, every time.Duration, n *int) error {
	if every <= 0 {
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			b, err := get(ctx, base+"/metrics")
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			if !strings.Contains(string(b), "\nportask_ready 1\n") {
				return errors.New("/metrics does not say portask_ready 1")
			}
			*n++
		}
	}
}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.200s", url, res.Status, b)
	}
	return b, err
}

// share reads profiles, merged, with `go tool pprof`.
func (l *Lab) share(ctx context.Context, profiles [][]byte, res *MonitoringResult) error {
	dir, remove, err := l.scratch()
	if err != nil {
		return err
	}
	defer remove()
	args := []string{"tool", "pprof", "-top", "-cum", "-nodecount=1000000", "-nodefraction=0", "-unit=us", "-focus=" + monitoringCode, l.Portask}
	for i, b := range profiles {
		file := filepath.Join(dir, "cpu"+strconv.Itoa(i))
		if err := os.WriteFile(file, b, 0o600); err != nil {
			return err
		}
		args = append(args, file)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute) // the first use builds pprof
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", args...).Output()
	if err != nil {
		return fmt.Errorf("go tool pprof: %w", err)
	}
	res.Top = string(out)
	of, total, err := focused(res.Top)
	if err != nil {
		return err
	}
	res.Share, res.Profiled = of/total, time.Duration(total*1000)
	return nil
}

var showing = regexp.MustCompile(`(?m)^Showing nodes accounting for ([0-9.]+)us, .* of ([0-9.]+)us total`)

// focused reads how much of a profile pprof's focus kept, in microseconds.
func focused(top string) (of, total float64, err error) {
	m := showing.FindStringSubmatch(top)
	if m == nil {
		if strings.Contains(top, "Showing nodes accounting for 0") {
			return 0, 1, nil
		}
		return 0, 0, fmt.Errorf("pprof said %.200q", top)
	}
	if of, err = strconv.ParseFloat(m[1], 64); err != nil {
		return 0, 0, err
	}
	total, err = strconv.ParseFloat(m[2], 64)
	return of, total, err
}
