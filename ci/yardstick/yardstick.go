// Package yardstick holds the calibration kernels that run inside a process:
// small pieces of work whose cost says how fast the machine is just now. A
// figure divided by a kernel's figure of the same moment carries over to other
// moments and, less well, to other machines. (Package kernel has the one that is
// a server of its own.)
//
// Kernels are frozen: a change of what one does invalidates the constants in
// configs/slo.yaml and all figures kept in benchdata. They use the standard
// library only, allocate nothing while they are timed, and print nothing.
//
// Functions may be called from any goroutine; kernels side by side disturb each
// other.
package yardstick

import (
	"hash/crc32"
	"slices"
	"time"
)

// Reading is what one kernel took.
type Reading struct {
	Kernel string `json:"kernel"`
	// Ns is the time of one operation: the median where each was timed, with P99
	// as its upper tail; where they were timed in groups the lower quartile of the
	// groups, which others interrupt the less, and P99 is the same.
	Ns  float64 `json:"ns"`
	P99 float64 `json:"p99_ns"`
	// Samples is the number of timed operations or groups.
	Samples int `json:"samples"`
}

// Names of the kernels, which are those of the constants in configs/slo.yaml.
const (
	Arithmetic = "arithmetic" // one step of a chain of multiplications: never waits for memory
	Copy       = "copy"       // 1 MiB from one place to another, out of a span of 64 MiB
	CRC        = "crc"        // CRC32C of 64 KiB
	Echo       = "echo"       // 256 B over loopback TCP and back
	EchoTail   = "echo-p99"   // the 99th percentile of it
	Stream     = "stream"     // 64 KiB over loopback TCP, one way
	Sync       = "fdatasync"  // 4 KiB written to a file and synced
)

// steps in a group of the arithmetic kernel: some 50 us.
const steps = 32 << 10

// sink keeps the compiler from leaving out the work.
var sink uint64

// MeasureArithmetic times a dependent chain (xorshift-multiply, as in SplitMix64)
// for about the time given, in groups of 32 Ki steps.
func MeasureArithmetic(d time.Duration) Reading {
	return groups(Arithmetic, d, steps, func() {
		x := sink | 1
		for range steps {
			x ^= x >> 30
			x *= 0xbf58476d1ce4e5b9
		}
		sink = x
	})
}

// MeasureCopy times copies of 1 MiB that walk through 64 MiB on either side, more
// than a core's caches hold. It takes 128 MiB while it runs.
func MeasureCopy(d time.Duration) Reading {
	const span, piece = 64 << 20, 1 << 20
	from, to := make([]byte, span), make([]byte, span)
	for i := 0; i < span; i += 4096 { // the first touch of a page is not what is timed
		from[i], to[i] = 1, 1
	}
	at := 0
	return groups(Copy, d, 1, func() {
		copy(to[at:at+piece], from[at:at+piece])
		at = (at + piece) % span
	})
}

// MeasureCRC times the CRC32C of 64 KiB in the cache.
func MeasureCRC(d time.Duration) Reading {
	table := crc32.MakeTable(crc32.Castagnoli)
	b := make([]byte, 64<<10)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return groups(CRC, d, 4, func() {
		for range 4 {
			sink += uint64(crc32.Checksum(b, table))
		}
	})
}

// groupsMin is the fewest groups that make a reading: on a machine whose
// processors others have, the time given holds a handful, most of them
// interrupted.
const groupsMin = 40

// groups calls f, which does n operations, until d is over and there are enough
// groups, after a first call that warms up.
func groups(name string, d time.Duration, n int, f func()) Reading {
	f()
	times := make([]float64, 0, 4096)
	for begin := time.Now(); len(times) < cap(times) && (len(times) < groupsMin || time.Since(begin) < d); {
		t := time.Now()
		f()
		times = append(times, float64(time.Since(t))/float64(n))
	}
	r := reading(name, times)
	r.Ns = times[len(times)/4]
	r.P99 = r.Ns
	return r
}

// reading sorts times, which it owns.
func reading(name string, times []float64) Reading {
	slices.Sort(times)
	return Reading{Kernel: name, Ns: times[len(times)/2], P99: times[min(len(times)-1, len(times)*99/100)], Samples: len(times)}
}
