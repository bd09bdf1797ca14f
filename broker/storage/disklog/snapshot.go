package disklog

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
)

// snapshotName is the file in a log's directory that keeps the newest snapshot
// when the segment goes in whose footer it was.
//
//	 0       4   6   8               16      20      24      28      32
//	┌───────┬───┬───┬───────────────┬───────┬───────┬───────┬───────┬────────┬─
//	│ PTSP  │ver│ 0 │    offset     │ bytes │crcdata│   0   │  crc  │ data …
//	└───────┴───┴───┴───────────────┴───────┴───────┴───────┴───────┴────────┴─
const (
	snapshotName  = "snapshot"
	snapshotBytes = 32
	magicSnapshot = 'P' | 'T'<<8 | 'S'<<16 | 'P'<<24
)

// appendSnapshot appends a snapshot file: the state after the batches below an
// offset.
func appendSnapshot(dst []byte, below message.Offset, data []byte) []byte {
	n := len(dst)
	dst = append(dst, make([]byte, snapshotBytes)...)
	b := dst[n:]
	le.PutUint32(b, magicSnapshot)
	le.PutUint16(b[4:], formatVersion)
	le.PutUint64(b[8:], uint64(below))
	le.PutUint32(b[16:], uint32(len(data)))
	le.PutUint32(b[20:], crc(data))
	sealCRC(b)
	return append(dst, data...)
}

// parseSnapshot reads a snapshot file; data aliases b.
func parseSnapshot(b []byte) (below message.Offset, data []byte, err error) {
	const what = "snapshot"
	if len(b) < snapshotBytes {
		return 0, nil, corrupted(what, "the file has %d bytes", len(b))
	}
	head, data := b[:snapshotBytes], b[snapshotBytes:]
	if err := checkBlock(head, magicSnapshot, what); err != nil {
		return 0, nil, err
	}
	below = message.Offset(le.Uint64(head[8:]))
	if le.Uint16(head[6:]) != 0 || le.Uint32(head[24:]) != 0 || below < 0 {
		return 0, nil, corrupted(what, "reserved bits are set")
	}
	if n := le.Uint32(head[16:]); int64(n) != int64(len(data)) {
		return 0, nil, corrupted(what, "%d bytes of %d", len(data), n)
	}
	if got, want := crc(data), le.Uint32(head[20:]); got != want {
		return 0, nil, corrupted(what, "checksum is %08x, computed %08x", want, got)
	}
	return below, data, nil
}

// loadSnapshot reads the snapshot file of a log's directory; NoOffset if there
// is none.
func loadSnapshot(fsys vfs.FS, dir string) (message.Offset, []byte, error) {
	b, err := readFile(fsys, filepath.Join(dir, snapshotName), maxSnapshotBytes+snapshotBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return message.NoOffset, nil, nil
	}
	if err != nil {
		return message.NoOffset, nil, err
	}
	below, data, err := parseSnapshot(b)
	if err != nil {
		return message.NoOffset, nil, err
	}
	return below, data, nil
}

// snapshot returns the snapshot in a sealed segment's footer, NoOffset if it
// has none.
func (s *segment) snapshot() (message.Offset, []byte, error) {
	s.Retain()
	defer s.Release()
	if err := s.log.eng.files.pin(s); err != nil {
		return message.NoOffset, nil, err
	}
	t, err := readTrailer(s.file, s.size)
	if err != nil || t.flags&flagSnapshot == 0 {
		return message.NoOffset, nil, err
	}
	f, err := readFooter(s.file, s.size, &t)
	if err != nil {
		return message.NoOffset, nil, err
	}
	return t.snapshotOffset, f.snapshot, nil
}

// keepSnapshot copies the snapshot in s to a file of its own, so that s may go.
func (l *Log) keepSnapshot(s *segment) error {
	below, data, err := s.snapshot()
	if err != nil {
		return err
	}
	return l.eng.replace(filepath.Join(l.dir, snapshotName), appendSnapshot(nil, below, data))
}

// replay gives the partition its state back: the newest snapshot, and the
// envelopes of the batches behind it.
func (r *recovery) replay() error {
	l := r.l
	from := message.NoOffset
	data, newest := r.snapshot, r.snapshotAt
	for i := len(l.segs) - 1; i >= 0; i-- {
		s := l.segs[i]
		if !s.sealed || s.end <= newest {
			continue
		}
		below, b, err := s.snapshot()
		if err != nil && !damage(err) { // else an earlier one and more batches do as well
			return err
		}
		if err == nil && below > newest {
			data, newest, s.snapAt = b, below, below
			break
		}
	}
	l.snapAt, l.snapSynced = newest, newest
	to := l.opts.Replay
	if to == nil {
		return nil
	}
	if newest >= 0 {
		if err := to.Snapshot(data); err != nil {
			return err
		}
		from = newest
	}
	from = max(from, l.Start())
	for i := find(l.segs, from); i < len(l.segs); i++ {
		if err := l.segs[i].replay(from, to.Batch); err != nil {
			return err
		}
	}
	return nil
}

// replay calls each for the envelopes of the batches from the offset on. In a
// segment that was not read through the headers are checked.
func (s *segment) replay(from message.Offset, each func(*message.Envelope) error) error {
	s.Retain()
	defer s.Release()
	v := s.view()
	if err := v.open(); err != nil {
		return err
	}
	if len(v.entries) == 0 {
		return nil
	}
	sc := newScan(s.file, s.pos, s.seed)
	sc.heads = true
	sc.buf = make([]byte, peekBytes)
	c, _ := v.interval(lastAtOffset(v.entries, from))
	for c = v.skipGap(c); c.pos < v.pos; c = v.skipGap(c) {
		f, err := sc.next(c.pos, c.off)
		if err != nil {
			return err
		}
		switch f.kind {
		case foundEnd:
			return nil // the rest is lost; the first who reads it reports it
		case foundBad:
			c.pos, c.off = f.end, f.next
		case foundBatch:
			c.pos, c.off = f.end, f.env.EndOffset()
			if f.env.BaseOffset >= from {
				if err := each(&f.env); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
