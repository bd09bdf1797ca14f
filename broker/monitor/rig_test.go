package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/storage/disklog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// rig is a broker on a file system in memory, with a Monitor that shows it.
type rig struct {
	t    testing.TB
	m    *Monitor
	s    *server.Server
	full atomic.Bool // the engine says that it is
	sick atomic.Bool // syncs of segments fail
	stop func()
}

// space is an engine whose space the test decides on.
type space struct {
	storage.Engine
	full *atomic.Bool
}

func (e space) Space() (free, total int64, low bool, err error) {
	free, total, _, err = e.Engine.Space()
	return free, total, e.full.Load(), err
}

func newRig(t testing.TB, o Options) *rig {
	t.Helper()
	o.Listen = "127.0.0.1:0"
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, m: m, stop: func() {}}
	t.Cleanup(func() {
		r.stop()
		if err := m.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return r
}

// attach starts the broker.
func (r *rig) attach() {
	r.t.Helper()
	fs := vfs.NewFault(vfs.NewMem(), func(op vfs.Op) vfs.Decision {
		if r.sick.Load() && op.Kind == vfs.OpSync && filepath.Ext(op.Name) == ".seg" {
			return vfs.Decision{Err: io.ErrClosedPipe}
		}
		return vfs.Decision{}
	})
	engine, err := disklog.Open(fs, "data", disklog.Options{Spares: -1, ReserveBytes: -1, FirstBytes: 1 << 20})
	if err != nil {
		r.t.Fatal(err)
	}
	r.s, err = server.New(server.Options{Listen: "127.0.0.1:0", Loops: 2, Engine: space{engine, &r.full}, Measure: true})
	if err != nil {
		r.t.Fatal(err)
	}
	r.m.Attach(r.s)
	var served sync.WaitGroup
	served.Go(func() {
		if err := r.s.Serve(); err != nil {
			r.t.Errorf("serve: %v", err)
		}
	})
	r.stop = sync.OnceFunc(func() {
		if err := r.s.Close(); err != nil && !r.sick.Load() {
			r.t.Errorf("close the server: %v", err)
		}
		served.Wait()
		if err := engine.Close(); err != nil && !r.sick.Load() {
			r.t.Errorf("close the engine: %v", err)
		}
	})
}

func (r *rig) dial() *client.Client {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	c, err := client.Dial(ctx, r.s.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

func (r *rig) topic(c *client.Client, name string, partitions int) {
	r.t.Helper()
	if _, err := c.Admin().CreateTopic(r.t.Context(), client.TopicConfig{Name: name, Partitions: partitions}); err != nil {
		r.t.Fatal(err)
	}
}

// send produces n messages, each a batch of its own.
func (r *rig) send(c *client.Client, topic string, n int, level message.AckLevel) error {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	p, err := c.Producer(ctx, topic, client.WithAck(level), client.WithLinger(0), client.WithDeliveryTimeout(patience))
	if err != nil {
		return err
	}
	for i := range n {
		if _, err := p.Send(ctx, &message.Message{Value: fmt.Appendf(nil, "message %d", i)}); err != nil {
			return err
		}
	}
	return p.Close(ctx)
}

// get asks the admin listener.
func (r *rig) get(path string) (status int, body []byte, h http.Header) {
	r.t.Helper()
	res, err := http.Get("http://" + r.m.Addr().String() + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatalf("%s: %v", path, err)
	}
	return res.StatusCode, b, res.Header
}

// report is GET /stats.
func (r *rig) report() *Report {
	r.t.Helper()
	status, b, _ := r.get("/stats")
	out := new(Report)
	if err := json.Unmarshal(b, out); err != nil || status != 200 {
		r.t.Fatalf("/stats: %d, %v", status, err)
	}
	return out
}

// until polls: processes elsewhere have their own time.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
