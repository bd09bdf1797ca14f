package compression

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/portask/portask/broker/message"
)

// TestLazy: a program that imports the package and never compresses has no
// coder. A child process that runs no test says what its packages allocated when
// they were initialised.
func TestLazy(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	line := regexp.MustCompile(`(?m)^init (\S+) @\S+ ms, \S+ ms clock, (\d+) bytes, (\d+) allocs$`)
	own, libraries := -1, 0
	for _, m := range line.FindAllStringSubmatch(string(out), -1) {
		n, _ := strconv.Atoi(m[2])
		switch {
		case m[1] == "github.com/portask/portask/broker/compression":
			own = n
			t.Logf("%s: %d bytes in %s allocations", m[1], n, m[3])
		case regexp.MustCompile(`klauspost|pierrec|brotli|snappy`).MatchString(m[1]):
			libraries += n
			t.Logf("%s: %d bytes", m[1], n)
		}
	}
	// The lists' heads and what the tests have as variables.
	if own < 0 || own > 8<<10 {
		t.Errorf("the package took %d bytes before its first use", own)
	}
	if libraries > 64<<10 {
		t.Errorf("its libraries took %d bytes before their first use", libraries)
	}
}

// TestIdleMemory: what a coder of each kind holds while it waits, which times
// GOMAXPROCS is what the package can hold, is within the table of the package's
// documentation.
func TestIdleMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has memory of its own")
	}
	src := text(300 << 10)                     // longer than a window: coders are as large as they get
	most := map[message.Algorithm][levels]int{ // KiB
		message.Gzip: {1100, 1400, 1800}, message.LZ4: {200, 1000, 1000}, message.Zstd: {2300, 3600, 7200}, message.Brotli: {2800, 3200, 5400},
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	empty := func() {
		for l := range levels {
			gzipEncoders[l].free, lz4HC[l].free, zstdEncoders[l].free, zstdLiteral[l].free, brotliEncoders[l].free = nil, nil, nil, nil, nil
		}
		lz4Fast.free, gzipDecoders.free, zstdDecoders.free, brotliDecoders.free = nil, nil, nil, nil
	}
	dst := make([]byte, 0, Bound(message.Brotli, len(src)))
	for _, a := range []message.Algorithm{message.Gzip, message.LZ4, message.Zstd, message.Brotli} {
		for l := range levels {
			empty()
			before := heap()
			dst, _ = AppendCompress(dst[:0], src, a, l)
			took := int(heap()-before) >> 10
			t.Logf("%s %s: %d KiB", a, l, took)
			if took > most[a][l] {
				t.Errorf("%s %s: an idle encoder holds %d KiB, more than %d", a, l, took, most[a][l])
			}
		}
		empty()
		enc, _ := AppendCompress(nil, src, a, LevelFastest)
		out := make([]byte, 0, len(src)+decodeSlack)
		empty()
		before := heap()
		if _, err := AppendDecompress(out, enc, a, len(src), Limits{}); err != nil {
			t.Fatal(err)
		}
		took := int(heap()-before) >> 10
		t.Logf("%s: decoder %d KiB", a, took)
		if took > 700 {
			t.Errorf("%s: an idle decoder holds %d KiB", a, took)
		}
		runtime.KeepAlive(enc)
	}
}

// TestKeep: however many coders are in use at once, a list keeps no more than
// GOMAXPROCS.
func TestKeep(t *testing.T) {
	made := 0
	var mu sync.Mutex
	k := newKeep(func() *int {
		mu.Lock()
		defer mu.Unlock()
		made++
		return new(int)
	})
	if made != 0 || k.free != nil {
		t.Fatal("something was made before it was wanted")
	}
	n := 4 * runtime.GOMAXPROCS(0)
	var all []*int
	for range n {
		all = append(all, k.take())
	}
	for _, x := range all {
		k.give(x)
	}
	if made != n || len(k.free) != runtime.GOMAXPROCS(0) {
		t.Errorf("%d made, %d kept", made, len(k.free))
	}
	if x := k.take(); x != all[runtime.GOMAXPROCS(0)-1] || made != n {
		t.Error("the coder used last was not taken first")
	}
	// Two takers never hold one coder.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				x := k.take()
				if *x++; *x != 1 {
					t.Error("shared")
				}
				*x--
				k.give(x)
			}
		})
	}
	wg.Wait()
}

func BenchmarkKeep(b *testing.B) {
	k := newKeep(func() *int { return new(int) })
	for _, p := range []int{1, 8} {
		b.Run(fmt.Sprintf("goroutines=%d", p), func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(p)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					k.give(k.take())
				}
			})
		})
	}
}
