package disklog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"strconv"
	"strings"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// The layouts of FORMAT.md. All integers are little-endian.
const (
	formatVersion = 1

	headerBytes  = 64
	trailerBytes = 128
	entryBytes   = 24
	gapBytes     = 24
	recordBytes  = 512
	recordStride = 4096 // two records never share a physical sector
	metaBytes    = 24

	magicSegment = 'P' | 'T'<<8 | 'S'<<16 | 'G'<<24
	magicTrailer = 'P' | 'T'<<8 | 'S'<<16 | 'F'<<24
	magicRecord  = 'P' | 'T'<<8 | 'S'<<16 | 'D'<<24
	magicMeta    = 'P' | 'T'<<8 | 'S'<<16 | 'M'<<24

	maxSnapshotBytes = 16 << 20
	minSegmentBytes  = 4 << 10
	maxSegmentBytes  = 1 << 30
)

// noTime is the latest timestamp of nothing.
const noTime = math.MinInt64

var le = binary.LittleEndian

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crc(b []byte) uint32 { return crc32.Update(0, castagnoli, b) }

// sealCRC writes the checksum of all bytes before the last four into those.
func sealCRC(b []byte) {
	n := len(b) - 4
	le.PutUint32(b[n:], crc(b[:n]))
}

// checkBlock checks the magic, the checksum and the version of a fixed block
// whose last four bytes are the checksum and whose version stands at 4. A
// magic that differs is damage too: these blocks stand where no other can.
func checkBlock(b []byte, magic uint32, what string) error {
	n := len(b) - 4
	if got, want := crc(b[:n]), le.Uint32(b[n:]); got != want {
		return corrupted(what, "checksum is %08x, computed %08x", want, got)
	}
	if m := le.Uint32(b); m != magic {
		return corrupted(what, "magic is %08x", m)
	}
	if v := le.Uint16(b[4:]); v != formatVersion {
		return fault.New(fault.NewerFormat, "read "+what).WithField("version").WithLimit(int64(v), formatVersion)
	}
	return nil
}

func corrupted(what, format string, args ...any) *fault.Error {
	return fault.New(fault.Corrupted, "read "+what).WithField(what).WithDetail(format, args...)
}

// zeroBytes reports whether b holds nothing but zeros.
func zeroBytes(b []byte) bool {
	for len(b) >= 8 {
		if le.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// Flags of a segment header.
const (
	flagZeroed   = 1 << 0 // all bytes behind the header were zero when the id was given
	flagAttached = 1 << 1 // part of a log; else a spare
)

// header stands at the beginning of a segment.
//
//	    0       4   6   8               16
//	   ┌───────┬───┬───┬───────────────┬───────────────────────────────┐
//	 0 │ magic │ver│flg│   id (seed)   │            topic id           │
//	   │ PTSG  │u16│u16│      u64      │              16 B             │
//	   ├───────┼───┴───┼───────────────┼───────────────┬───────┬───────┤
//	32 │ index │   0   │  base offset  │    created    │   0   │  crc  │
//	   │  u32  │       │      i64      │    i64 µs     │       │  u32  │
//	   └───────┴───────┴───────────────┴───────────────┴───────┴───────┘
type header struct {
	flags   uint16
	seed    message.Seed
	id      storage.PartitionID
	base    message.Offset
	created int64
}

func (h *header) zeroed() bool   { return h.flags&flagZeroed != 0 }
func (h *header) attached() bool { return h.flags&flagAttached != 0 }

// put writes h over the first 64 bytes of b.
func (h *header) put(b []byte) {
	b = b[:headerBytes]
	clear(b)
	le.PutUint32(b, magicSegment)
	le.PutUint16(b[4:], formatVersion)
	le.PutUint16(b[6:], h.flags)
	le.PutUint64(b[8:], uint64(h.seed))
	if h.attached() {
		copy(b[16:32], h.id.Topic[:])
		le.PutUint32(b[32:], h.id.Index)
		le.PutUint64(b[40:], uint64(h.base))
		le.PutUint64(b[48:], uint64(h.created))
	}
	sealCRC(b)
}

// parse reads h from the first 64 bytes of b, which must be there.
func (h *header) parse(b []byte) error {
	b = b[:headerBytes]
	const what = "segment header"
	if err := checkBlock(b, magicSegment, what); err != nil {
		return err
	}
	*h = header{
		flags:   le.Uint16(b[6:]),
		seed:    message.Seed(le.Uint64(b[8:])),
		id:      storage.PartitionID{Topic: [16]byte(b[16:32]), Index: le.Uint32(b[32:])},
		base:    message.Offset(le.Uint64(b[40:])),
		created: int64(le.Uint64(b[48:])),
	}
	switch {
	case h.flags&^(flagZeroed|flagAttached) != 0, le.Uint32(b[36:]) != 0, le.Uint32(b[56:]) != 0:
		return corrupted(what, "reserved bits are set")
	case h.seed == 0:
		return corrupted(what, "id is 0")
	case h.base < 0, !h.attached() && !zeroBytes(b[16:56]):
		return corrupted(what, "base offset %d, attached %t", h.base, h.attached())
	}
	return nil
}

// Flags of a trailer.
const (
	flagSnapshot = 1 << 0
	flagRebuilt  = 1 << 1
)

// trailer is the last 128 bytes of a sealed segment.
//
//	    0       4   6   8               16              24
//	   ┌───────┬───┬───┬───────────────┬───────────────┬───────────────┐
//	 0 │ magic │ver│flg│   id (seed)   │  base offset  │   end offset  │
//	   ├───────┼───┴───┼───────────────┼───────────────┼───────────────┤
//	32 │dataend│batches│   max time    │ first append  │  last append  │
//	   ├───────┼───────┼───────┬───────┼───────────────┼───────┬───────┤
//	64 │ chain │entries│ gaps  │snapsh.│snapshot offset│footer │foot.c.│
//	   ├───────┴───────┴───────┴───────┴───────────────┴───────┼───────┤
//	96 │                           0                           │  crc  │
//	   └───────────────────────────────────────────────────────┴───────┘
type trailer struct {
	flags          uint16
	seed           message.Seed
	base, end      message.Offset
	dataEnd        uint32
	batches        uint32
	maxTime        int64
	firstAppend    int64
	lastAppend     int64
	chain          uint32
	entries        uint32
	gaps           uint32
	snapshotBytes  uint32
	snapshotOffset message.Offset
	footerBytes    uint32
	footerCRC      uint32
}

func (t *trailer) put(b []byte) {
	b = b[:trailerBytes]
	clear(b)
	le.PutUint32(b, magicTrailer)
	le.PutUint16(b[4:], formatVersion)
	le.PutUint16(b[6:], t.flags)
	le.PutUint64(b[8:], uint64(t.seed))
	le.PutUint64(b[16:], uint64(t.base))
	le.PutUint64(b[24:], uint64(t.end))
	le.PutUint32(b[32:], t.dataEnd)
	le.PutUint32(b[36:], t.batches)
	le.PutUint64(b[40:], uint64(t.maxTime))
	le.PutUint64(b[48:], uint64(t.firstAppend))
	le.PutUint64(b[56:], uint64(t.lastAppend))
	le.PutUint32(b[64:], t.chain)
	le.PutUint32(b[68:], t.entries)
	le.PutUint32(b[72:], t.gaps)
	le.PutUint32(b[76:], t.snapshotBytes)
	le.PutUint64(b[80:], uint64(t.snapshotOffset))
	le.PutUint32(b[88:], t.footerBytes)
	le.PutUint32(b[92:], t.footerCRC)
	sealCRC(b)
}

// parse reads t and checks that its numbers fit each other and a file of size
// bytes.
func (t *trailer) parse(b []byte, size int64) error {
	b = b[:trailerBytes]
	const what = "segment trailer"
	if err := checkBlock(b, magicTrailer, what); err != nil {
		return err
	}
	*t = trailer{
		flags:          le.Uint16(b[6:]),
		seed:           message.Seed(le.Uint64(b[8:])),
		base:           message.Offset(le.Uint64(b[16:])),
		end:            message.Offset(le.Uint64(b[24:])),
		dataEnd:        le.Uint32(b[32:]),
		batches:        le.Uint32(b[36:]),
		maxTime:        int64(le.Uint64(b[40:])),
		firstAppend:    int64(le.Uint64(b[48:])),
		lastAppend:     int64(le.Uint64(b[56:])),
		chain:          le.Uint32(b[64:]),
		entries:        le.Uint32(b[68:]),
		gaps:           le.Uint32(b[72:]),
		snapshotBytes:  le.Uint32(b[76:]),
		snapshotOffset: message.Offset(le.Uint64(b[80:])),
		footerBytes:    le.Uint32(b[88:]),
		footerCRC:      le.Uint32(b[92:]),
	}
	switch {
	case t.flags&^(flagSnapshot|flagRebuilt) != 0, !zeroBytes(b[96:124]):
		return corrupted(what, "reserved bits are set")
	case t.base < 0 || t.end < t.base:
		return corrupted(what, "offsets [%d, %d)", t.base, t.end)
	case t.snapshotBytes > maxSnapshotBytes,
		int64(t.footerBytes) != footerLen(int64(t.entries), int64(t.gaps), int64(t.snapshotBytes)),
		t.dataEnd < headerBytes,
		int64(t.dataEnd)+int64(t.footerBytes)+trailerBytes > size,
		t.entries > t.batches,
		int64(t.batches) > (int64(t.dataEnd)-headerBytes)/message.EnvelopeBytes:
		return corrupted(what, "sizes do not fit a file of %d bytes", size)
	}
	return nil
}

// footerLen is the size of a footer without its trailer, a multiple of 8.
func footerLen(entries, gaps, snapshot int64) int64 {
	return (entries*entryBytes + gaps*gapBytes + snapshot + 7) &^ 7
}

// flagClean: the log was closed in order.
const flagClean = 1 << 0

// record is one of the two in the durable file: what is known to be on the
// device.
//
//	    0       4   6   8               16              24
//	   ┌───────┬───┬───┬───────────────┬───────────────┬───────────────┐
//	 0 │ magic │ver│flg│   sequence    │     epoch     │   log start   │
//	   ├───────┴───┴───┼───────────────┼───────────────┼───────┬───────┤
//	32 │  durable end  │ segment base  │  segment id   │ posit.│ index │
//	   ├───────────────┴───────────────┼───────────────┼───────┴───────┤
//	64 │           topic id            │    written    │  0 … crc@508  │
//	   └───────────────────────────────┴───────────────┴───────────────┘
type record struct {
	clean    bool
	sequence uint64
	epoch    uint64
	start    message.Offset
	durable  message.Offset
	segBase  message.Offset // NoOffset: none
	segSeed  message.Seed
	pos      int64
	id       storage.PartitionID
	written  int64
}

func (r *record) put(b []byte) {
	b = b[:recordBytes]
	clear(b)
	le.PutUint32(b, magicRecord)
	le.PutUint16(b[4:], formatVersion)
	if r.clean {
		le.PutUint16(b[6:], flagClean)
	}
	le.PutUint64(b[8:], r.sequence)
	le.PutUint64(b[16:], r.epoch)
	le.PutUint64(b[24:], uint64(r.start))
	le.PutUint64(b[32:], uint64(r.durable))
	le.PutUint64(b[40:], uint64(r.segBase))
	le.PutUint64(b[48:], uint64(r.segSeed))
	le.PutUint32(b[56:], uint32(r.pos))
	le.PutUint32(b[60:], r.id.Index)
	copy(b[64:80], r.id.Topic[:])
	le.PutUint64(b[80:], uint64(r.written))
	sealCRC(b)
}

func (r *record) parse(b []byte) error {
	b = b[:recordBytes]
	const what = "durable record"
	if err := checkBlock(b, magicRecord, what); err != nil {
		return err
	}
	flags := le.Uint16(b[6:])
	*r = record{
		clean:    flags&flagClean != 0,
		sequence: le.Uint64(b[8:]),
		epoch:    le.Uint64(b[16:]),
		start:    message.Offset(le.Uint64(b[24:])),
		durable:  message.Offset(le.Uint64(b[32:])),
		segBase:  message.Offset(le.Uint64(b[40:])),
		segSeed:  message.Seed(le.Uint64(b[48:])),
		pos:      int64(le.Uint32(b[56:])),
		id:       storage.PartitionID{Topic: [16]byte(b[64:80]), Index: le.Uint32(b[60:])},
		written:  int64(le.Uint64(b[80:])),
	}
	switch {
	case flags&^flagClean != 0, !zeroBytes(b[88:508]):
		return corrupted(what, "reserved bits are set")
	case r.start < 0 || r.durable < r.start || r.segBase < message.NoOffset || r.segBase > r.durable:
		return corrupted(what, "start %d, durable end %d, segment %d", r.start, r.durable, r.segBase)
	}
	return nil
}

// Names of files.

const (
	segSuffix  = ".seg"
	cutSuffix  = ".cut"
	tempSuffix = ".tmp"
)

func segName(base message.Offset) string { return fmt.Sprintf("%020d%s", int64(base), segSuffix) }

// parseSegName is the inverse of segName.
func parseSegName(name string) (message.Offset, bool) {
	digits, ok := strings.CutSuffix(name, segSuffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || segName(message.Offset(n)) != name {
		return 0, false
	}
	return message.Offset(n), true
}

func cutName(base message.Offset, epoch uint64) string {
	return fmt.Sprintf("%020d-%d%s", int64(base), epoch, cutSuffix)
}

func spareName(seed message.Seed) string { return fmt.Sprintf("%016x%s", uint64(seed), segSuffix) }
