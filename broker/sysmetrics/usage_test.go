package sysmetrics

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/portask/portask/broker/fault"
)

const stalls = "some avg10=12.50 avg60=0.10 avg300=0.00 total=1500\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=7\n"

var stallsMean = Stall{Some10: 0.125, Full10: 0.01, Some: 1500 * time.Microsecond, Full: 7 * time.Microsecond}

func TestUsageOfFileTrees(t *testing.T) {
	two := Cgroup{2, "/cg/a"}
	for _, tt := range []struct {
		name   string
		limits CgroupLimits
		tree   fstest.MapFS
		want   CgroupUsage
	}{
		{"none", CgroupLimits{}, files(), CgroupUsage{}},
		{"v2", CgroupLimits{Memory: two, CPU: two}, files(
			"cg/a/memory.current", "1048576\n", "cg/a/memory.events", "low 0\nhigh 3\noom 1\noom_kill 2\noom_group_kill 9\n",
			"cg/a/cpu.stat", "usage_usec 5\nnr_periods 10\nnr_throttled 4\nthrottled_usec 2500\n",
		), CgroupUsage{MemoryBytes: 1 << 20, OOMKills: 2, Throttled: 2500 * time.Microsecond, Throttles: 4}},
		{"v1", CgroupLimits{Memory: Cgroup{1, "/cg/m"}, CPU: Cgroup{1, "/cg/c"}}, files(
			"cg/m/memory.usage_in_bytes", "4096\n", "cg/m/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
			"cg/c/cpu.stat", "nr_periods 10\nnr_throttled 4\nthrottled_time 2500\n",
		), CgroupUsage{MemoryBytes: 4096, OOMKills: 1, Throttled: 2500, Throttles: 4}},
		{"v2 without controllers", CgroupLimits{Memory: two, CPU: two}, files(), CgroupUsage{}},
	} {
		if got, err := tt.limits.UsageIn(tt.tree); err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v, want %+v", tt.name, got, err, tt.want)
		}
	}
	got, err := CgroupLimits{Memory: two, CPU: two}.UsageIn(files("cg/a/memory.current", "lots\n", "cg/a/cpu.stat", "nr_throttled 4\n"))
	var f *fault.Error
	if !errors.As(err, &f) || f.Field != "/cg/a/memory.current" || got.Throttles != 4 {
		t.Errorf("a damaged file: %+v, %v", got, err)
	}
}

func TestPressureOfFileTrees(t *testing.T) {
	host := []string{"proc/pressure/cpu", "some avg10=50.00 total=9\n", "proc/pressure/memory", stalls, "proc/pressure/io", stalls}
	group := append([]string{"cg/a/cpu.pressure", stalls, "cg/a/memory.pressure", stalls, "cg/a/io.pressure", stalls}, host...)
	two := CgroupLimits{CPU: Cgroup{2, "/cg/a"}}
	for _, tt := range []struct {
		name   string
		limits CgroupLimits
		tree   fstest.MapFS
		ok     bool
		want   Pressure
	}{
		{"an old kernel", two, files(), false, Pressure{}},
		{"the machine's", CgroupLimits{CPU: Cgroup{1, "/cg/a"}}, files(group...), true,
			Pressure{CPU: Stall{Some10: 0.5, Some: 9 * time.Microsecond}, Memory: stallsMean, IO: stallsMean}},
		{"a group without files", two, files(host...), true,
			Pressure{CPU: Stall{Some10: 0.5, Some: 9 * time.Microsecond}, Memory: stallsMean, IO: stallsMean}},
		{"the group's", two, files(group...), true, Pressure{CPU: stallsMean, Memory: stallsMean, IO: stallsMean, OfCgroup: true}},
	} {
		if got, ok, err := tt.limits.PressureIn(tt.tree); err != nil || ok != tt.ok || got != tt.want {
			t.Errorf("%s: %+v, %t, %v, want %+v", tt.name, got, ok, err, tt.want)
		}
	}
	// Started with psi=0 a kernel shows directories where nothing can be read.
	off := files("proc/pressure/cpu/x", "")
	if got, ok, err := two.PressureIn(off); ok || err != nil || got != (Pressure{}) {
		t.Errorf("files that cannot be read: %+v, %t, %v", got, ok, err)
	}
}

func FuzzParseStall(f *testing.F) {
	f.Add(stalls)
	f.Add("some avg10=100.00 total=18446744073709551615\n")
	f.Add("some avg10=NaN\nfull avg10=-1 total=-1")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		st, err := parseStall(s)
		if err != nil {
			return
		}
		for _, v := range []float64{st.Some10, st.Full10} {
			if math.IsNaN(v) || v < 0 || v > 1 {
				t.Errorf("a share of %v", v)
			}
		}
		if st.Some < 0 || st.Full < 0 {
			t.Errorf("times %v, %v", st.Some, st.Full)
		}
	})
}

// Everything at once, of this process on this machine.
func TestReader(t *testing.T) {
	dir := t.TempDir()
	r, err := NewReader(filepath.Join(dir, "not", "yet", "there"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	burn(20 * time.Millisecond)
	b, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	if b.Process.CPU <= a.Process.CPU || b.Host.Busy < a.Host.Busy || !b.At.After(a.At) {
		t.Errorf("went from %+v to %+v", a, b)
	}
	if b.Host.Processors < 1 || b.Disk.TotalBytes <= 0 || b.Disk.FreeBytes > b.Disk.TotalBytes || b.Network.BytesIn < a.Network.BytesIn {
		t.Errorf("host %+v, disk %+v, network %+v", b.Host, b.Disk, b.Network)
	}
	if b.Host.SwapUsedBytes > b.Host.SwapBytes || b.Host.Load1 < 0 {
		t.Errorf("host %+v", b.Host)
	}
	if want, err := Disk(dir); err != nil || want.Device != b.Disk.Device || want.TotalBytes != b.Disk.TotalBytes {
		t.Errorf("the disk of a path that is not there is %+v, of the directory above it %+v, %v", b.Disk, want, err)
	}
	if _, err := Disk(filepath.Join(dir, "nowhere")); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a path that is not there: %v", err)
	}
	if b.Disk.Device != "" { // writing is seen
		f, err := os.Create(filepath.Join(dir, "f"))
		if err == nil {
			_, err = f.Write(make([]byte, 1<<20))
		}
		if err == nil {
			err = f.Sync()
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		after, err := Disk(dir)
		if err != nil || after.WriteBytes < b.Disk.WriteBytes+1<<20 || after.Writes == b.Disk.Writes {
			t.Errorf("after a mebibyte was synced the device went from %+v to %+v, %v", b.Disk, after, err)
		}
	}
	t.Logf("%+v", b)
}

func TestLoopback(t *testing.T) {
	for name, want := range map[string]bool{"lo": true, "lo0": true, "Loopback Pseudo-Interface 1": true, "eth0": false, "local1": false, "": false} {
		if loopback(name) != want {
			t.Errorf("%q: %t", name, !want)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	r, err := NewReader(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Read(); err != nil {
			b.Fatal(err)
		}
	}
}
