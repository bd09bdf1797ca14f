package loopback

import (
	"testing"

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
