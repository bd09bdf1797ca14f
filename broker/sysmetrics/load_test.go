package sysmetrics

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestLoadIsOfShares(t *testing.T) {
	r, err := NewLoadReader(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	known := false
	// The kernel's counters move in hundredths of a second.
	for deadline := time.Now().Add(30 * time.Second); !known && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
		l := r.Read()
		for name, v := range map[string]float64{"cpu": l.CPU, "memory": l.Memory, "disk": l.Disk, "link": l.Link} {
			if !math.IsNaN(v) && !(v >= 0 && v <= 1) {
				t.Fatalf("%s is %v", name, v)
			}
		}
		known = !math.IsNaN(l.CPU) && !math.IsNaN(l.Memory)
	}
	if !known {
		t.Error("CPU and memory are never known")
	}
}

func TestBusyShare(t *testing.T) {
	from := HostSample{Busy: 10 * time.Second, Idle: 100 * time.Second, Steal: time.Second, IOWait: 2 * time.Second}
	to := from
	to.Busy += 600 * time.Millisecond
	to.Idle += 900 * time.Millisecond
	to.IOWait += 300 * time.Millisecond
	to.Steal += 200 * time.Millisecond
	if got := busyShare(from, to); math.Abs(got-0.4) > 1e-9 {
		t.Errorf("busy %v, want 0.4", got)
	}
	if got := busyShare(from, from); !math.IsNaN(got) {
		t.Errorf("of no time: %v", got)
	}
}

func TestFollowDropsWhatIsNoNumber(t *testing.T) {
	for _, c := range []struct{ old, now, weight, want float64 }{
		{0.5, math.NaN(), 1, 0.5}, {0.5, math.Inf(1), 1, 0.5}, {math.NaN(), 0.2, 0.1, 0.2},
		{0.5, 1, 0.5, 0.75}, {0.5, -3, 1, 0}, {0.5, 7, 1, 1},
	} {
		if got := follow(c.old, c.now, c.weight); got != c.want {
			t.Errorf("follow(%v, %v, %v) = %v, want %v", c.old, c.now, c.weight, got, c.want)
		}
	}
}

func TestLinkSpeeds(t *testing.T) {
	dir := t.TempDir()
	for name, speed := range map[string]string{"eth0": "1000\n", "veth1": "-1\n", "lo": "10000", "odd": "fast"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "speed"), []byte(speed), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := linkSpeeds(dir)
	if len(got) != 1 || got["eth0"] != 125e6 {
		t.Errorf("speeds %v, want 125 MB/s of eth0 alone", got)
	}
}

func BenchmarkLoad(b *testing.B) {
	r, err := NewLoadReader(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r.Read()
	}
}
