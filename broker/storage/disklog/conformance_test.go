package disklog

import (
	"math/rand/v2"
	"path/filepath"
	"runtime/debug"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/storage/storagetest"
)

func TestMain(m *testing.M) {
	// The campaigns make and drop hundreds of thousands of small file systems.
	debug.SetGCPercent(400)
	goleak.VerifyTestMain(m)
}

// fixed makes an engine do the same calls for the same script.
func fixed(o Options) Options {
	rng := rand.New(rand.NewPCG(1, 2))
	o.inline = true
	var mu sync.Mutex // segments are made and recycled by whoever calls
	o.random = func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return rng.Uint64()
	}
	return o
}

// small keeps tests with segments of a few KiB from growing by the MiB.
func small() Options {
	return Options{FirstBytes: 8 << 10, SegmentBytes: 64 << 10, ReserveBytes: 64 << 10, OpenSegments: 3}
}

func damageMeta(fs vfs.FS, dir string) func(name string) error {
	return func(name string) error {
		path := filepath.Join(dir, metaDir, name)
		b, err := readFile(fs, path, 1<<20)
		if err != nil {
			return err
		}
		b[len(b)-1] ^= 0x10
		return writeFile(fs, path, b)
	}
}

func TestConformanceMem(t *testing.T) {
	storagetest.Run(t, func(t testing.TB) *storagetest.Target {
		fs := vfs.NewMem()
		o := fixed(small())
		return &storagetest.Target{
			Persists:     true,
			SegmentBytes: []int64{4 << 10, 64 << 10},
			Open:         func() (storage.Engine, error) { return Open(fs, "data", o) },
			DamageMeta:   func(name string) error { return damageMeta(fs, "data")(name) },
			Crash: func(e storage.Engine, seed uint64) (storage.Engine, error) {
				left := fs.Clone(vfs.CrashRandom, seed)
				if err := e.Close(); err != nil { // of the world that is gone
					return nil, err
				}
				fs = left
				return Open(fs, "data", o)
			},
		}
	})
}

func TestConformanceDisk(t *testing.T) {
	storagetest.Run(t, func(t testing.TB) *storagetest.Target {
		dir := filepath.Join(t.TempDir(), "data")
		o := small()
		o.SegmentBytes = 1 << 20
		return &storagetest.Target{
			Persists:     true,
			SegmentBytes: []int64{4 << 10, 64 << 10, 0},
			Open:         func() (storage.Engine, error) { return Open(vfs.OS(), dir, o) },
			DamageMeta:   damageMeta(vfs.OS(), dir),
		}
	})
}
