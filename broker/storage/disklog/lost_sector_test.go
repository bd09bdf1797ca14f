package disklog

import (
	"os"
	"testing"

	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
)

// A sector that a power cut lost may differ from what was written by one bit of
// the header it holds the end of. The body behind it is lost too, so it is no
// flipped bit.
func TestLostSectorIsNoFlippedBit(t *testing.T) {
	const seed = message.Seed(7)
	lim := message.DefaultLimits()
	batch := func(base message.Offset, size int) []byte {
		b := message.NewBuilder(lim)
		for i := range 2 { // the second is a millisecond later: the low bit of byte 76
			if err := b.Append(&message.Message{Value: make([]byte, size), Timestamp: int64(1 + 1000*i)}); err != nil {
				t.Fatal(err)
			}
		}
		out, err := b.Finish(nil, message.Producer{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		message.Stamp(out, base, 1, 1, seed)
		return out
	}
	// The second batch's header crosses a sector's border before its byte 76 and
	// behind the last byte that is not zero but that one.
	var file []byte
	for size := 1; ; size++ {
		file = append(make([]byte, headerBytes), batch(0, size)...)
		if at := len(file) % vfs.SectorBytes; at == vfs.SectorBytes-74 || at == vfs.SectorBytes-75 {
			break
		}
		if size > 2000 {
			t.Fatal("no size puts the border there")
		}
	}
	pos := int64(len(file))
	file = append(file, batch(2, 300)...)
	third := int64(len(file))
	file = append(file, batch(4, 10)...)
	from := (pos/vfs.SectorBytes + 1) * vfs.SectorBytes
	clear(file[from:min(from+vfs.SectorBytes, third)])

	f, err := vfs.NewMem().OpenFile("/seg", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(file, 0); err != nil {
		t.Fatal(err)
	}
	sc := newScan(f, int64(len(file)), seed)
	defer sc.done()
	c, err := sc.readThrough(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.bad) != 1 || c.bad[0].pos != pos {
		t.Fatalf("bad ranges %+v, expected one at %d", c.bad, pos)
	}
	hurt, how, err := sc.damaged(&c.bad[0], true, true)
	if err != nil || hurt {
		t.Fatalf("taken for damage: %v, %s, %v", hurt, how, err)
	}
}
