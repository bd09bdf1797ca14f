package disklog

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// FuzzRecovery opens a log whose active segment holds arbitrary bytes, with the
// checksums of the header, of up to eight batches and of the trailer made right
// if asked for, so that the fuzzer gets behind them. Whatever they are: no
// panic; a second start finds what the first one left, and nothing to cut; what
// is served passes every checksum and is contiguous but for gaps; offsets that
// were acknowledged stay taken; and the log goes on.
func FuzzRecovery(f *testing.F) {
	fs, segment := fuzzLog(f)
	good, err := readFile(fs, segment, 1<<20)
	check(f, err)
	f.Add(good, uint8(0), true)
	f.Add(good, uint8(1), false)
	f.Add(good[:len(good)-10], uint8(0), true)
	f.Add(append(bytes.Clone(good), make([]byte, 1000)...), uint8(3), true)
	torn := bytes.Clone(good)
	clear(torn[700:1300])
	f.Add(torn, uint8(0), true)
	f.Add(torn, uint8(2), false)
	sealed := append(bytes.Clone(good), appendFooter(nil, fuzzSegment(f, good), nil, 5, 0)...)
	f.Add(sealed, uint8(0), true)
	f.Add(sealed, uint8(7), false)
	f.Add([]byte{}, uint8(0), true)
	f.Add(good[:headerBytes], uint8(0), false)
	f.Fuzz(func(t *testing.T, b []byte, mend uint8, synced bool) {
		if len(b) > 64<<10 {
			return
		}
		b = mended(bytes.Clone(b), mend)
		left := fs.Clone(vfs.CrashAll, 0)
		check(t, writeFile(left, segment, b))
		if !synced {
			// As if nothing in the segment was ever synced.
			d, _, err := loadDurable(left, filepath.Dir(segment), os.O_RDWR)
			check(t, err)
			r := d.last
			r.durable, r.segBase, r.segSeed, r.pos, r.clean = 0, 0, 0, 0, false
			d.last.durable = 0
			check(t, errors.Join(d.write(r, true), d.write(r, true), d.f.Close()))
		}
		first, ok := recoverOnce(t, left, synced)
		if !ok {
			return
		}
		second, ok := recoverOnce(t, left, synced)
		if !ok || second.End < first.End || second.torn != 0 || second.lost < first.lost {
			t.Fatalf("first start %+v, second start %+v", first, second)
		}
		if _, err := Verify(left, "data", nil, nil); err != nil {
			t.Fatal(err)
		}
	})
}

// fuzzLog makes a log of five batches in one segment, and returns the segment's
// name.
func fuzzLog(t testing.TB) (*vfs.Mem, string) {
	t.Helper()
	fs := vfs.NewMem()
	e, err := Open(fs, "data", fixed(small()))
	check(t, err)
	o := newOracle(20)
	l, err := e.OpenLog(testID, storage.LogOptions{})
	check(t, err)
	for l.Stats().Batches < 5 {
		check(t, o.append(l, 1, 400))
	}
	segment := l.(*Log).segs[0].path()
	check(t, e.Close())
	return fs, segment
}

// fuzzSegment is the segment in b, for its footer.
func fuzzSegment(t testing.TB, b []byte) *segment {
	t.Helper()
	var h header
	check(t, h.parse(b))
	c, err := newScan(bytesAt(b), int64(len(b)), h.seed).readThrough(h.base, nil)
	check(t, err)
	return &segment{seed: h.seed, base: h.base, contents: c}
}

// mended makes checksums right: bit 0 the header's, bit 1 those of the first
// batches, bit 2 the trailer's.
func mended(b []byte, which uint8) []byte {
	if which&1 != 0 && len(b) >= headerBytes {
		sealCRC(b[:headerBytes])
	}
	var h header
	if which&2 != 0 && len(b) >= headerBytes && h.parse(b) == nil {
		pos := headerBytes
		for range 8 {
			if len(b)-pos < message.EnvelopeBytes {
				break
			}
			head := b[pos : pos+message.EnvelopeBytes]
			env, err := message.ParseEnvelope(head, &wideLimits)
			if err != nil {
				break
			}
			message.Stamp(head, env.BaseOffset, env.AppendTime, env.Epoch, h.seed)
			if pos += env.Bytes(); pos > len(b) {
				break
			}
		}
	}
	if which&4 != 0 && len(b) >= headerBytes+trailerBytes {
		t := b[len(b)-trailerBytes:]
		if n := int(le.Uint32(t[88:])); n <= len(b)-headerBytes-trailerBytes {
			le.PutUint32(t[92:], crc(b[len(b)-trailerBytes-n:len(b)-trailerBytes]))
		}
		sealCRC(t)
	}
	return b
}

type recovered struct {
	Start, End message.Offset
	torn       int64
	lost       int
}

// recoverOnce opens the log, reads all of it, and appends. ok is false if it is
// refused, which is allowed for a later version alone.
func recoverOnce(t *testing.T, fs vfs.FS, synced bool) (r recovered, ok bool) {
	t.Helper()
	e, err := Open(fs, "data", fixed(small()))
	check(t, err)
	defer func() { check(t, e.Close()) }()
	l, err := e.OpenLog(testID, storage.LogOptions{Replay: &refold{}})
	switch fault.CodeOf(err) {
	case fault.None:
	case fault.NewerFormat, fault.NotSupported:
		return r, false
	default:
		t.Fatal(err)
	}
	st := l.Stats()
	r = recovered{Start: l.Start(), End: l.End(), torn: st.TornBytes, lost: st.Corruptions}
	if _, _, err := readAll(l); err != nil {
		// Bodies that only their own checksum vouches for may exceed the
		// default limits; the log serves what it was given.
		if c := fault.CodeOf(err); c != fault.TooLarge && c != fault.Invalid {
			t.Fatal(err, l.(*Log).Problems())
		}
	}
	if synced && l.End() < 5 {
		t.Fatalf("log ends at %d", l.End())
	}
	if _, err := l.OffsetForTime(0); err != nil {
		t.Fatal(err)
	}
	if l.End() < 1<<62 {
		o := &oracle{build: message.NewBuilder(message.DefaultLimits()), clock: 1}
		check(t, l.Append(o.at(l.End(), l.Epoch())))
		r.End = l.End()
	}
	return r, true
}

// FuzzBlocks parses arbitrary bytes as every fixed layout, with the checksum
// made right: no panic, and what is accepted is written back as it was read.
func FuzzBlocks(f *testing.F) {
	for _, s := range []string{goldenHeader, goldenTrailer, goldenRecord, goldenMeta, goldenSnapshot} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= headerBytes {
			b := bytes.Clone(b[:headerBytes])
			sealCRC(b)
			var h header
			if h.parse(b) == nil && !bytes.Equal(block(headerBytes, h.put), b) {
				t.Errorf("header % x", b)
			}
		}
		if len(b) >= trailerBytes {
			b := bytes.Clone(b[:trailerBytes])
			sealCRC(b)
			var tr trailer
			if tr.parse(b, 1<<20) == nil {
				if !bytes.Equal(block(trailerBytes, tr.put), b) {
					t.Errorf("trailer % x", b)
				}
				_, _ = readFooter(bytesAt(make([]byte, 1<<20)), 1<<20, &tr)
			}
		}
		if len(b) >= recordBytes {
			b := bytes.Clone(b[:recordBytes])
			sealCRC(b)
			var r record
			if r.parse(b) == nil && !bytes.Equal(block(recordBytes, r.put), b) {
				t.Errorf("record % x", b)
			}
		}
		if blob, err := parseMeta(b); err == nil && !bytes.Equal(appendMeta(nil, blob), b) {
			t.Errorf("metadata % x", b)
		}
		if below, data, err := parseSnapshot(b); err == nil && !bytes.Equal(appendSnapshot(nil, below, data), b) {
			t.Errorf("snapshot % x", b)
		}
	})
}
