package nats

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/driver/drivertest"
	"github.com/portask/portask/loadgen/peers/servertest"
)

func TestMain(m *testing.M) {
	servertest.Main(m, func() error { return goleak.Find() })
}

func TestCoreContract(t *testing.T) {
	s := servertest.NATS(t, false, false)
	drivertest.Run(t, func(t *testing.T) driver.Driver {
		d, err := OpenCore(t.Context(), s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}, drivertest.Options{Ack: message.AckNone, Lossy: true})
}

func TestJetStreamContract(t *testing.T) {
	for _, tt := range []struct {
		name     string
		sync     bool
		ack      message.AckLevel
		gives    driver.Durability
		settings map[string]string
	}{
		{"file", false, message.AckAccepted, driver.OS, nil},
		{"fast", false, message.AckAccepted, driver.OS, map[string]string{"publish": "fast"}},
		{"memory", false, message.AckAccepted, driver.Memory, map[string]string{"storage": "memory"}},
		{"async", false, message.AckAccepted, driver.Memory, map[string]string{"storage": "async"}},
		{"sync=always", true, message.AckDurable, driver.Disk, nil},
		{"ack=none", false, message.AckNone, driver.Nothing, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := servertest.NATS(t, true, tt.sync)
			settings := map[string]string{"monitor": s.Monitor}
			for k, v := range tt.settings {
				settings[k] = v
			}
			open := func(t *testing.T) driver.Driver {
				d, err := OpenJetStream(t.Context(), s.Addr(), settings)
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
			d.Close()
			drivertest.Run(t, open, drivertest.Options{Ack: tt.ack, Lossy: tt.ack == message.AckNone, ClientAllocations: 40})
		})
	}
}

// What NATS cannot do is refused, with its reason.
func TestRefusals(t *testing.T) {
	s := servertest.NATS(t, true, false)
	core, err := OpenCore(t.Context(), s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer core.Close()
	js, err := OpenJetStream(t.Context(), s.Addr(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer js.Close()
	ok := func(d driver.Driver, n driver.Needs) {
		t.Helper()
		if err := d.Check(n); err != nil {
			t.Errorf("%s, %+v: %v", d.Name(), n, err)
		}
	}
	refused := func(d driver.Driver, n driver.Needs, why string) {
		t.Helper()
		u := driver.AsUnsupported(d.Check(n))
		if u == nil || !strings.Contains(u.Error(), why) {
			t.Errorf("%s, %+v: %v, want a refusal that says %q", d.Name(), n, u, why)
		}
	}
	none := driver.Needs{Mode: driver.Stream, Partitions: 4}
	accepted := none
	accepted.Ack, accepted.Visibility = message.AckAccepted, message.AckAccepted
	durable := accepted
	durable.Ack = message.AckDurable
	keys, retention, existing, compressed, group := accepted, accepted, accepted, accepted, accepted
	keys.Keys, retention.Retention, existing.Existing, group.Mode = true, true, true, driver.Group
	compressed.Compression.Policy = compression.DefaultPolicy()
	ok(core, none)
	refused(core, accepted, "stores and acknowledges nothing")
	refused(core, driver.Needs{Mode: driver.Stream, Retention: true}, "stores nothing")
	refused(core, driver.Needs{Mode: driver.Stream, Existing: true}, "subscribes")
	ok(js, none)
	ok(js, accepted)
	ok(js, retention)
	ok(js, existing)
	refused(js, durable, "sync_interval always")
	refused(js, keys, "no key")
	refused(js, compressed, "does not compress")
	refused(js, group, "delivery mode group")
	refused(js, driver.Needs{Mode: driver.Queue}, "delivery mode queue")
}

func TestSettings(t *testing.T) {
	if _, err := Core.Open(t.Context(), driver.Options{Settings: map[string]string{"storage": "file"}}); err == nil {
		t.Error("a setting of the core was accepted")
	}
	for k, v := range map[string]string{"storage": "disk", "publish": "slow", "max_pending": "0", "flow": "65536", "pull_messages": "x", "x": "y"} {
		if _, err := JetStream.Open(t.Context(), driver.Options{Settings: map[string]string{k: v}}); err == nil {
			t.Errorf("%s=%s was accepted", k, v)
		}
	}
	s := servertest.NATS(t, false, false)
	if _, err := OpenJetStream(t.Context(), s.Addr(), nil); err == nil {
		t.Error("a server without JetStream was accepted")
	}
	if _, err := OpenJetStream(t.Context(), s.Addr(), map[string]string{"monitor": s.Monitor}); err == nil {
		t.Error("the monitoring of a server without JetStream was accepted")
	}
}

// The dots of a topic's name would be levels of a subject.
func TestNamesOfTopics(t *testing.T) {
	for name, ok := range map[string]bool{"orders-1_a": true, "": false, "a.b": false, "a*": false, "a b": false, "ä": false} {
		if err := checkName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
