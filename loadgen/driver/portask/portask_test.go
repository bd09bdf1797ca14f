package portask

import (
	"testing"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/driver/drivertest"
	"github.com/portask/portask/loadgen/launch/launchtest"
)

func TestMain(m *testing.M) { launchtest.Main(m) }

func TestContract(t *testing.T) {
	b := launchtest.Start(t)
	for _, ack := range []message.AckLevel{message.AckAccepted, message.AckDurable} {
		t.Run("ack="+ack.String(), func(t *testing.T) {
			drivertest.Run(t, func(t *testing.T) driver.Driver {
				d, err := Open(t.Context(), b.Addr())
				if err != nil {
					t.Fatal(err)
				}
				return d
			}, drivertest.Options{Ack: ack})
		})
	}
}

func TestSettingsAreRefused(t *testing.T) {
	if _, err := Kind.Open(t.Context(), driver.Options{Settings: map[string]string{"x": "y"}}); err == nil {
		t.Error("an unknown setting was accepted")
	}
}
