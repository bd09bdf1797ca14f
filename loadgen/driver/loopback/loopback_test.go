package loopback

import (
	"reflect"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/driver/drivertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	drivertest.Run(t, func(*testing.T) driver.Driver { return Open(Behaviour{}) }, drivertest.Options{Ack: message.AckAccepted})
}

func TestSettings(t *testing.T) {
	if _, err := Kind.Open(t.Context(), driver.Options{Settings: map[string]string{
		"slow": "5ms/100", "stall": "1s@3s", "drop": "1", "duplicate": "2", "reorder": "3", "flip": "4", "refuse": "5",
	}}); err != nil {
		t.Error(err)
	}
	for k, v := range map[string]string{"slow": "5ms", "stall": "1s", "drop": "0", "flip": "x", "sleep": "1"} {
		if _, err := Kind.Open(t.Context(), driver.Options{Settings: map[string]string{k: v}}); err == nil {
			t.Errorf("%s=%s was accepted", k, v)
		}
	}
}

// The target counts what it did to messages, and times its pauses itself.
func TestDid(t *testing.T) {
	const n = 100
	for _, tt := range []struct {
		b    Behaviour
		want Did
	}{
		{Behaviour{DropEvery: 10}, Did{Served: n, Dropped: 10}},
		{Behaviour{DuplicateEvery: 20}, Did{Served: n, Duplicated: 5}},
		{Behaviour{FlipEvery: 50}, Did{Served: n, Flipped: 2}},
		{Behaviour{RefuseEvery: 25}, Did{Served: n, Refused: 4}},
		{Behaviour{Slow: time.Millisecond, SlowEvery: 50}, Did{Served: n, Paused: 2}},
	} {
		d := Open(tt.b)
		if _, err := d.Prepare(t.Context(), driver.Topic{Name: "t", Partitions: 1}); err != nil {
			t.Fatal(err)
		}
		c, err := d.Connect(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Producer(t.Context(), driver.ProducerOptions{Topic: "t", Ack: message.AckAccepted})
		if err != nil {
			t.Fatal(err)
		}
		s := p.Slot(func(error) {})
		for range n {
			if err := s.Send(t.Context(), 0, &message.Message{Value: []byte("value")}); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.Close()
		got := d.Did()
		for i, x := range got.Pauses {
			if x.Message != uint64(i+1)*50 || x.First > x.Message || x.Took < tt.b.Slow {
				t.Errorf("pause %+v", x)
			}
		}
		if uint64(len(got.Pauses)) != got.Paused {
			t.Errorf("%d pauses of %d", len(got.Pauses), got.Paused)
		}
		got.Pauses = nil
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%+v: did %+v, want %+v", tt.b, got, tt.want)
		}
	}
}
