package killtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/corpus"
	"github.com/portask/portask/loadgen/driver/portask"
	"github.com/portask/portask/loadgen/launch"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/scenario"
)

// kills is the length of the campaign; LOADGEN_KILLS makes it longer.
func kills(t *testing.T) int {
	s := os.Getenv("LOADGEN_KILLS")
	if s == "" {
		return 20
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("LOADGEN_KILLS=%q: want a number from 1", s)
	}
	return n
}

const (
	rate = 2000 // messages a second at each ack level
	// upLeast and upMost bound how long a broker serves before it is killed:
	// some die while the clients are still coming back, some under full load.
	upLeast, upMost = 100 * time.Millisecond, 700 * time.Millisecond
	// perKill of sending leaves room for a slow start on a loaded machine.
	perKill = 1200 * time.Millisecond
	drain   = 30 * time.Second
)

// Two loads go on at once, one at each ack level that promises something, on
// topics whose visibility is the same.
func TestNothingAcknowledgedIsLostBySIGKILL(t *testing.T) {
	n := kills(t)
	seed := rand.Uint64()
	t.Logf("%d kills, seed %d", n, seed)
	random := rand.New(rand.NewPCG(seed, 0))

	dir := t.TempDir()
	b := &broker{dir: dir, binary: build(t, dir)}
	if err := b.start(t.Context(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Kill() })

	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var loads sync.WaitGroup
	levels := []message.AckLevel{message.AckAccepted, message.AckDurable}
	results := make([]*load.Result, len(levels))
	for i, level := range levels {
		file, err := corpus.Generate("json", 256<<10, seed)
		if err != nil {
			t.Fatal(err)
		}
		plan := scenario.Default()
		plan.Name, plan.Seed = "kill-"+level.String(), seed
		plan.Topics[0].Name, plan.Topics[0].Partitions = level.String(), 3
		plan.Producers.Ack, plan.Producers.Compression = level.String(), "threshold:zstd"
		plan.Payload.Size = "200..1000"
		plan.Phases = plan.Phases[1:]
		plan.Phases[0].Rate, plan.Phases[0].Duration = rate, time.Duration(n)*perKill
		plan.Limits.Drain = drain
		d, err := portask.Open(ctx, b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		run, err := load.New(ctx, load.Config{Scenario: plan, Driver: d, Corpus: []corpus.File{file}})
		if err != nil {
			t.Fatal(err)
		}
		loads.Go(func() {
			res, err := run.Execute(ctx)
			if err != nil {
				cancel(fmt.Errorf("load at %s: %w", level, err))
			}
			results[i] = res
		})
	}

	sending, stop := context.WithTimeout(ctx, time.Duration(n)*perKill)
	defer stop()
	done := 0
	for ; done < n; done++ {
		up := upLeast + time.Duration(random.Int64N(int64(upMost-upLeast)))
		if !b.serveFor(sending, up) {
			break
		}
		b.Kill()
		if err := b.start(t.Context(), b.Addr()); err != nil {
			cancel(err)
			t.Errorf("restart after kill %d: %v", done+1, err)
			break
		}
	}
	loads.Wait()
	if err := context.Cause(ctx); err != nil {
		t.Fatalf("%v; the broker's log:\n%s", err, b.log())
	}
	if done < n {
		t.Errorf("%d kills while messages were being sent, want %d", done, n)
	}
	for i, level := range levels {
		res := results[i]
		c := res.Counts
		t.Logf("%s: %d kills, %d acknowledged, %d delivered, %d batches sent again, %d of them duplicates", level, done, c.Acked, c.Delivered, res.Wire.Retries, res.Wire.Duplicates)
		for _, v := range res.Violations {
			t.Errorf("%s: %s", level, v)
		}
		if !res.Complete || c.Acked == 0 || c.Delivered < c.Acked {
			t.Errorf("%s: complete %v, %d acknowledged, %d delivered; errors %q", level, res.Complete, c.Acked, c.Delivered, res.Errors)
		}
	}
	if t.Failed() {
		t.Logf("the broker's log:\n%s", b.log())
		return
	}
	if err := b.Stop(10 * time.Second); err != nil {
		t.Error(err)
	}
}

// build makes the broker's binary in dir.
func build(t *testing.T, dir string) string {
	t.Helper()
	name := filepath.Join(dir, "portask")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-pgo=off", "-o", name, "github.com/portask/portask/broker/cmd/portask").CombinedOutput(); err != nil {
		t.Fatalf("build the broker: %v\n%s", err, out)
	}
	return name
}

// broker is one process after another on the same data.
type broker struct {
	*launch.Broker
	dir, binary string
}

func (b *broker) start(ctx context.Context, listen string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	next, err := launch.Start(ctx, launch.Options{
		Binary: b.binary, Data: filepath.Join(b.dir, "data"), Listen: listen,
		AddrFile: filepath.Join(b.dir, "addr"), LogFile: filepath.Join(b.dir, "broker.log"),
		Args: []string{"--default-segment", "1MiB"}, // so that kills meet segments that begin and end
	})
	if err == nil {
		b.Broker = next
	}
	return err
}

// serveFor waits; false if the campaign is over or the broker ended by itself.
func (b *broker) serveFor(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-b.Ended():
		return false
	case <-ctx.Done():
		return false
	}
}

// log is the end of what the brokers said.
func (b *broker) log() []byte {
	text, err := os.ReadFile(filepath.Join(b.dir, "broker.log"))
	if err != nil {
		return []byte(err.Error())
	}
	return text[max(0, len(text)-8<<10):]
}
