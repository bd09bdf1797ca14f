package disklog

import (
	"io"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// footer is what stands before the trailer.
type footer struct {
	entries  []entry
	gaps     []gap
	snapshot []byte
}

// damage reports whether err says that bytes are not what was written, rather
// than that they could not be read.
func damage(err error) bool { return fault.CodeOf(err) == fault.Corrupted }

// readAt reads all of b; the file was that long when it was opened.
func readAt(f io.ReaderAt, b []byte, pos int64) error {
	n, err := f.ReadAt(b, pos)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// readTrailer reads the last bytes of a file of the given size.
func readTrailer(f io.ReaderAt, size int64) (t trailer, err error) {
	if size < headerBytes+trailerBytes {
		return t, corrupted("segment trailer", "the file has %d bytes", size)
	}
	var b [trailerBytes]byte
	if err := readAt(f, b[:], size-trailerBytes); err != nil {
		return t, err
	}
	err = t.parse(b[:], size)
	return t, err
}

// readFooter reads and checks what t describes.
func readFooter(f io.ReaderAt, size int64, t *trailer) (footer, error) {
	b := make([]byte, t.footerBytes)
	if err := readAt(f, b, size-trailerBytes-int64(len(b))); err != nil {
		return footer{}, err
	}
	const what = "segment footer"
	if got := crc(b); got != t.footerCRC {
		return footer{}, corrupted(what, "checksum is %08x, computed %08x", t.footerCRC, got)
	}
	ft := footer{entries: make([]entry, t.entries), gaps: make([]gap, t.gaps)}
	pos, off := int64(headerBytes)-1, t.base-1
	for i := range ft.entries {
		e := &ft.entries[i]
		e.parse(b)
		b = b[entryBytes:]
		if int64(e.pos) <= pos || e.off <= off || int64(e.pos) >= int64(t.dataEnd) || e.off >= t.end || e.before >= t.batches {
			return footer{}, corrupted(what, "index entry %d: offset %d at position %d", i, e.off, e.pos)
		}
		pos, off = int64(e.pos), e.off
	}
	if (t.entries == 0) != (t.batches == 0) {
		return footer{}, corrupted(what, "%d index entries for %d batches", t.entries, t.batches)
	}
	next := t.base
	for i := range ft.gaps {
		g := &ft.gaps[i]
		g.parse(b)
		b = b[gapBytes:]
		if g.from < next || g.next < g.from || g.next > t.end {
			return footer{}, corrupted(what, "gap %d: messages [%d, %d)", i, g.from, g.next)
		}
		next = g.next
	}
	if t.flags&flagSnapshot != 0 {
		ft.snapshot = b[:t.snapshotBytes]
	}
	first := t.base
	for _, g := range ft.gaps {
		if g.from == first {
			first = g.next
		}
	}
	if t.entries > 0 && ft.entries[0].off != first {
		return footer{}, corrupted(what, "the index begins at offset %d, the segment at %d", ft.entries[0].off, t.base)
	}
	return ft, nil
}

// appendFooter appends footer and trailer of a segment. snapshot is nil if
// there is none; it is of the batches below an offset.
func appendFooter(dst []byte, s *segment, snapshot []byte, below message.Offset, flags uint16) []byte {
	start := len(dst)
	var b [entryBytes]byte
	for i := range s.entries {
		s.entries[i].put(b[:])
		dst = append(dst, b[:]...)
	}
	for i := range s.gaps {
		s.gaps[i].put(b[:])
		dst = append(dst, b[:]...)
	}
	t := trailer{
		flags: flags, seed: s.seed, base: s.base, end: s.end, dataEnd: uint32(s.pos), batches: s.batches,
		maxTime: s.maxTime, firstAppend: s.firstAppend, lastAppend: s.lastAppend, chain: s.chain,
		entries: uint32(len(s.entries)), gaps: uint32(len(s.gaps)), snapshotBytes: uint32(len(snapshot)),
		snapshotOffset: below,
	}
	if snapshot != nil {
		t.flags |= flagSnapshot
	}
	dst = append(dst, snapshot...)
	for (len(dst)-start)%8 != 0 {
		dst = append(dst, 0)
	}
	t.footerBytes = uint32(len(dst) - start)
	t.footerCRC = crc(dst[start:])
	n := len(dst)
	var tb [trailerBytes]byte
	dst = append(dst, tb[:]...)
	t.put(dst[n:])
	return dst
}
