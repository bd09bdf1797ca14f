package vfs

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestGatherGoesOnAfterShortWrites writes through a kernel that takes a random
// part each time, and fails at the end.
func TestGatherGoesOnAfterShortWrites(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var bufs [][]byte
		var want []byte
		for range rng.IntN(3000) {
			b := make([]byte, rng.IntN(4))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			bufs = append(bufs, b)
			want = append(want, b...)
		}
		fails := len(want) + 1
		if rng.IntN(3) == 0 {
			fails = rng.IntN(len(want) + 1)
		}
		var got []byte
		write := func(fd int, vec []unix.Iovec, off int64) (int, error) {
			if fd != 7 || off != int64(100+len(got)) || len(vec) > iovMax {
				t.Fatalf("write of %d buffers to %d at %d after %d bytes", len(vec), fd, off, len(got))
			}
			if len(got) >= fails {
				return 0, unix.EIO
			}
			var all []byte
			for _, v := range vec {
				all = append(all, unsafe.Slice(v.Base, v.Len)...)
			}
			n := 1 + rng.IntN(len(all))
			got = append(got, all[:n]...)
			return n, nil
		}
		n, err := gather(7, write, bufs, 100)
		if n != len(got) || !bytes.Equal(got, want[:n]) {
			t.Fatalf("%d of %d bytes, or other ones", n, len(want))
		}
		if (err == nil) != (n == len(want)) || err != nil && err != unix.EIO {
			t.Fatalf("%d of %d bytes, %v", n, len(want), err)
		}
	}
	stuck := func(int, []unix.Iovec, int64) (int, error) { return 0, nil }
	if _, err := gather(7, stuck, [][]byte{{1}}, 0); err != io.ErrShortWrite {
		t.Fatal(err)
	}
}

func TestWritevAtAllocatesNothing(t *testing.T) {
	f := create(t, OS(), t.TempDir()+"/f")
	defer f.Close()
	bufs := make([][]byte, 100)
	for i := range bufs {
		bufs[i] = []byte("0123456789")
	}
	n := testing.AllocsPerRun(200, func() {
		if _, err := f.WritevAt(bufs, 0); err != nil {
			t.Fatal(err)
		}
	})
	if n > 0 && !raceEnabled {
		t.Fatalf("%v allocations", n)
	}
}
