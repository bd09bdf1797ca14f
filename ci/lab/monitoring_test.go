package lab

import (
	"regexp"
	"testing"
)

func TestFocused(t *testing.T) {
	const head = "File: portask\nType: cpu\nDuration: 64s, Total samples = 3930000us ( 6.14%)\nActive filters:\n   focus=x\n"
	of, total, err := focused(head + "Showing nodes accounting for 40000us, 1.02% of 3930000us total\n      flat  flat%   sum%        cum   cum%\n")
	if of != 40000 || total != 3930000 || err != nil {
		t.Errorf("%v of %v, %v", of, total, err)
	}
	if of, total, err = focused(head + "Showing nodes accounting for 0, 0% of 0 total\n"); of != 0 || total <= 0 || err != nil {
		t.Errorf("nothing in focus: %v of %v, %v", of, total, err)
	}
	if _, _, err := focused("what?"); err == nil {
		t.Error("nonsense is a profile")
	}
}

// What is monitoring's, and what the broker does anyway.
func TestMonitoringCode(t *testing.T) {
	match := regexp.MustCompile(monitoringCode).MatchString
	const p = "github.com/portask/portask/broker/"
	for _, name := range []string{p + "monitor.(*Monitor).sample", p + "monitor/latency.(*Recorder).Record", p + "server.(*loop).publish",
		p + "server.(*loop).recordAcks", p + "partition.(*Partition).moved", p + "sysmetrics.Host", "net/http.(*conn).serve",
		"github.com/prometheus/client_golang/prometheus.(*Registry).Gather"} {
		if !match(name) {
			t.Errorf("%s is not monitoring's", name)
		}
	}
	for _, name := range []string{p + "server.(*loop).turnEnd", p + "partition.(*Partition).write", p + "monitor/latency.Now",
		p + "server.(*loop).received", "internal/runtime/syscall/linux.Syscall6"} {
		if match(name) {
			t.Errorf("%s is monitoring's", name)
		}
	}
}
