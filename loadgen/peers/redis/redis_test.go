package redis

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/driver/drivertest"
	"github.com/portask/portask/loadgen/peers/server"
	"github.com/portask/portask/loadgen/peers/servertest"
)

func TestMain(m *testing.M) {
	// go-redis looks for a server that died once a second, and ends at the first
	// look after its client was closed.
	servertest.Main(m, func() error {
		return goleak.Find(goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
	})
}

func TestContract(t *testing.T) {
	for _, tt := range []struct {
		persistence string
		ack         message.AckLevel
		gives       driver.Durability
		settings    map[string]string
	}{
		{server.NoPersistence, message.AckAccepted, driver.Memory, nil},
		{server.AppendEverySecond, message.AckAccepted, driver.Memory, nil},
		{server.AppendOS, message.AckAccepted, driver.OS, map[string]string{"connections": "2", "count": "100"}},
		{server.AppendAlways, message.AckDurable, driver.Disk, nil},
	} {
		t.Run("persistence="+tt.persistence, func(t *testing.T) {
			s := servertest.Redis(t, tt.persistence)
			open := func(t *testing.T) driver.Driver {
				d, err := Open(t.Context(), s.Addr(), tt.settings)
				if err != nil {
					t.Fatal(err)
				}
				return d
			}
			d := open(t)
			x, err := d.Describe(t.Context())
			if got, ok := x.Gives(tt.ack); err != nil || !ok || got != tt.gives {
				t.Errorf("ack %v gives %q, %v, want %q", tt.ack, got, err, tt.gives)
			}
			if got, _ := x.Gives(message.AckDurable); (got == driver.Disk) != (tt.persistence == server.AppendAlways) {
				t.Errorf("ack durable gives %q", got)
			}
			d.Close()
			drivertest.Run(t, open, drivertest.Options{Ack: tt.ack, ClientAllocations: 4})
		})
	}
}

func TestRefusals(t *testing.T) {
	s := servertest.Redis(t, server.AppendEverySecond)
	d, err := Open(t.Context(), s.Addr(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	good := driver.Needs{Mode: driver.Stream, Ack: message.AckAccepted, Visibility: message.AckAccepted, Keys: true, Existing: true}
	if err := d.Check(good); err != nil {
		t.Error(err)
	}
	for why, change := range map[string]func(*driver.Needs){
		"appendfsync everysec": func(n *driver.Needs) { n.Ack = message.AckDurable },
		"visibility durable":   func(n *driver.Needs) { n.Visibility = message.AckDurable },
		"answers every":        func(n *driver.Needs) { n.Ack = message.AckNone },
		"by age or bytes":      func(n *driver.Needs) { n.Retention = true },
		"does not compress":    func(n *driver.Needs) { n.Compression.Policy = compression.DefaultPolicy() },
		"mode group":           func(n *driver.Needs) { n.Mode = driver.Group },
		"mode queue":           func(n *driver.Needs) { n.Mode = driver.Queue },
	} {
		n := good
		change(&n)
		if u := driver.AsUnsupported(d.Check(n)); u == nil || !strings.Contains(u.Error(), why) {
			t.Errorf("%v, want a refusal that says %q", u, why)
		}
	}
}

func TestSettings(t *testing.T) {
	for k, v := range map[string]string{"connections": "65", "count": "0", "x": "1"} {
		if _, err := Open(t.Context(), "127.0.0.1:1", map[string]string{k: v}); err == nil {
			t.Errorf("%s=%s was accepted", k, v)
		}
	}
	if _, err := Open(t.Context(), "127.0.0.1:1", nil); err == nil {
		t.Error("an address without a server was accepted")
	}
}

// What was sent when the server dies gets an error, and the consumer says what
// happened rather than waiting.
func TestDeathOfTheServer(t *testing.T) {
	s := servertest.Redis(t, server.NoPersistence)
	d, err := Open(t.Context(), s.Addr(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.Prepare(t.Context(), driver.Topic{Name: "t", Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	c, err := d.Connect(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	k, err := c.Consumer(t.Context(), driver.ConsumerOptions{Topic: "t", Partitions: []uint32{0}, Mode: driver.Stream})
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Producer(t.Context(), driver.ProducerOptions{Topic: "t", Ack: message.AckAccepted, Linger: -1})
	if err != nil {
		t.Fatal(err)
	}
	s.Kill()
	answered := make(chan error, 1)
	if err := p.Slot(func(err error) { answered <- err }).Send(t.Context(), 0, &message.Message{Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-answered:
		if err == nil {
			t.Error("a dead server acknowledged")
		}
	case <-time.After(10 * time.Second):
		t.Error("no answer")
	}
	if _, err := k.Poll(t.Context()); err == nil || errors.Is(err, driver.ErrClosed) {
		t.Errorf("Poll: %v, want the connection's error", err)
	}
}

// Ids in Redis's order have offsets in the same.
func TestOffsets(t *testing.T) {
	ids := []string{"0-0", "0-1", "1-0", "1700000000000-0", "1700000000000-1048575", "1700000000001-0", "8796093022207-1048575"}
	for i := 1; i < len(ids); i++ {
		if a, b := offset(ids[i-1]), offset(ids[i]); a >= b || a < 0 {
			t.Errorf("%s is at %d, %s at %d", ids[i-1], a, ids[i], b)
		}
	}
	for _, id := range []string{"", "1", "1-", "-1", "a-b", "1-1048576", "8796093022208-0"} {
		if got := offset(id); got != message.NoOffset {
			t.Errorf("%q has offset %d", id, got)
		}
	}
}

// Replies of another shape are errors, whatever they are.
func TestReplies(t *testing.T) {
	for _, x := range []any{nil, "x", []any{}, []any{"key"}, []any{1, []any{}}, []any{"key", "x"}} {
		if _, err := parseStream(x); err == nil {
			t.Errorf("stream %v was accepted", x)
		}
	}
	for _, x := range []any{nil, []any{"1-1"}, []any{"1-1", nil}, []any{1, []any{}}, []any{"1-1", []any{"v"}}, []any{"1-1", []any{"v", 1}}} {
		if _, err := parseEntry(x); err == nil {
			t.Errorf("entry %v was accepted", x)
		}
	}
	e, err := parseEntry([]any{"1-2", []any{"k", "key", "other", "x", "v", "value"}})
	if err != nil || e != (entry{"1-2", "key", "value"}) {
		t.Errorf("%+v, %v", e, err)
	}
}
