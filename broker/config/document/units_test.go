package document

import (
	"math"
	"testing"
	"time"
)

func TestSizes(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "0B": 0, "1": 1, "65536": 65536, "1B": 1, "3KiB": 3 << 10, "64MiB": 64 << 20, "2GiB": 2 << 30, "1TiB": 1 << 40,
		"9223372036854775807": math.MaxInt64, "99999999TiB": math.MaxInt64, "99999999999999999999": math.MaxInt64,
	} {
		if n, err := ParseSize(s); err != nil || n != want {
			t.Errorf("%q: %d, %v; want %d", s, n, err, want)
		}
	}
	for _, s := range []string{"", "B", "MiB", "64 MiB", "64M", "64MB", "64mib", "-1", "+1", "1.5GiB", "0x10", "1_000", "01", "1KiBB", " 1"} {
		if n, err := ParseSize(s); err == nil {
			t.Errorf("%q: %d; want an error", s, n)
		}
	}
	for n, want := range map[int64]string{0: "0B", 1: "1B", 1000: "1000B", 1024: "1KiB", 1536: "1536B", 3 << 20: "3MiB", 1 << 40: "1TiB", 1 << 50: "1024TiB"} {
		if s := FormatSize(n); s != want {
			t.Errorf("%d: %q; want %q", n, s, want)
		}
	}
}

func TestDurations(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"0s": 0, "30s": 30 * time.Second, "1.5s": 1500 * time.Millisecond, "7d": 7 * day, "1d12h": 36 * time.Hour, "0d1ns": 1,
		"106751d": 106751 * day, "1h2m3s4ms5us6ns": time.Hour + 2*time.Minute + 3*time.Second + 4*time.Millisecond + 5*time.Microsecond + 6,
	} {
		if d, err := ParseDuration(s); err != nil || d != want {
			t.Errorf("%q: %v, %v; want %v", s, d, err, want)
		}
	}
	for _, s := range []string{"", "0", "30", "d", "1.5d", "-1s", "+1s", "7d0", "7d1", "1h30", "106752d", "106751d24h", "1w", "7D", "1_0d", "1s7d", " 1s"} {
		if d, err := ParseDuration(s); err == nil {
			t.Errorf("%q: %v; want an error", s, d)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0s", time.Millisecond: "1ms", 5 * time.Second: "5s", 5 * time.Minute: "5m", 10 * time.Minute: "10m", time.Hour: "1h", 90 * time.Second: "1m30s",
		7 * day: "7d", 36 * time.Hour: "1d12h", 10 * time.Hour: "10h", time.Hour + time.Second: "1h0m1s", day + 1: "1d1ns",
	} {
		if s := FormatDuration(d); s != want {
			t.Errorf("%d: %q; want %q", d, s, want)
		}
	}
}

func TestUnitsRoundTrip(t *testing.T) {
	for _, n := range []int64{1, 7, 999, 1023, 1024, 1 << 20, 1<<20 + 1, 86_400_000_000_000, 86_400_000_000_001, 3_600_000_000_000, 60_000_000_000, 1_500_000, math.MaxInt64} {
		if got, err := ParseSize(FormatSize(n)); err != nil || got != n {
			t.Errorf("size %d: %q: %d, %v", n, FormatSize(n), got, err)
		}
		if got, err := ParseDuration(FormatDuration(time.Duration(n))); err != nil || int64(got) != n {
			t.Errorf("duration %d: %q: %d, %v", n, FormatDuration(time.Duration(n)), got, err)
		}
	}
}
