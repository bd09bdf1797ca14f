// Package rows keeps what compressing was measured to cost: one row for a batch,
// with a cell for each algorithm and level. Training and checking of the adaptive
// policy read rows, not payloads, so both run anywhere and give the same result.
//
// A file of rows is gzip over CSV. Payload files are named by class and hash
// only. Which rows are for training and which for checking follows from these two:
// see Row.Check.
package rows

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
)

// An Encoder is one algorithm at one level.
type Encoder struct {
	Algorithm message.Algorithm
	Level     compression.Level
}

// String is the name of the column: algorithm and level joined by a hyphen.
func (e Encoder) String() string { return e.Algorithm.String() + "-" + e.Level.String() }

// Encoders are all that were measured, in the order of the columns.
var Encoders = func() (all []Encoder) {
	for _, a := range []message.Algorithm{message.Snappy, message.LZ4, message.Zstd, message.Gzip, message.Brotli} {
		for l := compression.LevelFastest; l <= compression.LevelSmallest; l++ {
			all = append(all, Encoder{a, l})
		}
	}
	return all
}()

// Cell is what one encoder needed: bytes of output, nanoseconds of CPU.
type Cell struct{ Out, EncodeNs, DecodeNs int64 }

// Row is one batch.
type Row struct {
	Class, File string // File: the first 16 hex digits of the SHA-256 of the whole file
	Size        int    // nominal, of the sweep
	Index       int    // among the file's batches of this size
	In          int    // bytes of the batch
	// Load is the share of all processors that the burner was told to keep busy,
	// in percent.
	Load int
	// Readings of the machine while the row was measured, by gopsutil: percent of
	// the processors that were busy and stolen, MiB available, run queue times 100.
	CPU, Steal, AvailableMiB, Load1 int
	Signs                           compression.Signs
	Cells                           []Cell // as Encoders
}

// checkClasses are held out as whole classes: training sees no file like them.
// They are those whose names' hashes begin with a byte below 64.
func checkClass(class string) bool { return sha256.Sum256([]byte("class " + class))[0] < 64 }

// Check reports whether the row is for checking: its class is held out, or its
// file is, two of five by its hash. All rows of a file are on one side.
func (r *Row) Check() bool {
	if checkClass(r.Class) {
		return true
	}
	var b uint64
	if n, err := strconv.ParseUint(r.File, 16, 64); err == nil {
		b = n >> 56
	}
	return b%5 < 2
}

var heads = []string{"class", "file", "size", "index", "in", "load", "cpu", "steal", "available_mib", "load1",
	"pairs", "lanes", "plain", "near", "far", "probes"}

func header() []string {
	h := slices.Clone(heads)
	for _, e := range Encoders {
		h = append(h, e.String()+" out", e.String()+" encode_ns", e.String()+" decode_ns")
	}
	return h
}

// Limits of a file of rows.
const (
	rowsMax  = 1 << 17
	bytesMax = 256 << 20 // unpacked
)

// Write packs rows. The same rows give the same bytes.
func Write(w io.Writer, all []Row) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	c := csv.NewWriter(z)
	if err := c.Write(header()); err != nil {
		return err
	}
	var f []string
	for i := range all {
		r := &all[i]
		f = append(f[:0], r.Class, r.File)
		for _, v := range r.numbers() {
			f = append(f, strconv.Itoa(*v))
		}
		s := r.Signs
		for _, v := range []uint16{s.Pairs, s.Lanes, s.Plain, s.Near, s.Far, s.Probes} {
			f = append(f, strconv.Itoa(int(v)))
		}
		for _, x := range r.Cells {
			f = append(f, strconv.FormatInt(x.Out, 10), strconv.FormatInt(x.EncodeNs, 10), strconv.FormatInt(x.DecodeNs, 10))
		}
		if err := c.Write(f); err != nil {
			return err
		}
	}
	c.Flush()
	return errors.Join(c.Error(), z.Close())
}

// numbers are the fields of a row between its name and the signs.
func (r *Row) numbers() [8]*int {
	return [8]*int{&r.Size, &r.Index, &r.In, &r.Load, &r.CPU, &r.Steal, &r.AvailableMiB, &r.Load1}
}

// Read unpacks and checks rows. Errors name line and column.
func Read(in io.Reader) ([]Row, error) {
	z, err := gzip.NewReader(bufio.NewReader(in))
	if err != nil {
		return nil, fmt.Errorf("rows: %w", err)
	}
	defer z.Close()
	limited := &io.LimitedReader{R: z, N: bytesMax}
	c := csv.NewReader(limited)
	c.ReuseRecord = true
	head, err := c.Read()
	if err != nil {
		return nil, fmt.Errorf("rows: header: %w", err)
	}
	if !slices.Equal(head, header()) {
		return nil, errors.New("rows: the columns are not those of this version")
	}
	head = slices.Clone(head) // the record is reused
	var all []Row
	for {
		f, err := c.Read()
		if errors.Is(err, io.EOF) && limited.N > 0 {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("rows: %w", err)
		}
		if len(all) == rowsMax || limited.N <= 0 {
			return nil, fmt.Errorf("rows: more than %d, or than %d bytes", rowsMax, bytesMax)
		}
		r := Row{Class: f[0], File: f[1], Cells: make([]Cell, len(Encoders))}
		at := 2
		next := func(low, high int64) int64 {
			v, e := strconv.ParseInt(f[at], 10, 64)
			if e == nil && (v < low || v > high) {
				e = fmt.Errorf("%d is not in [%d, %d]", v, low, high)
			}
			if e != nil && err == nil {
				err = fmt.Errorf("rows: line %d, %s: %w", len(all)+2, head[at], e)
			}
			at++
			return v
		}
		for i, v := range r.numbers() {
			low := int64(0)
			if i == 0 || i == 2 {
				low = 128 // sizes
			}
			*v = int(next(low, 1<<30))
		}
		for _, v := range []*uint16{&r.Signs.Pairs, &r.Signs.Lanes, &r.Signs.Plain, &r.Signs.Near, &r.Signs.Far, &r.Signs.Probes} {
			*v = uint16(next(0, math.MaxUint16))
		}
		for i := range r.Cells {
			r.Cells[i] = Cell{next(1, 1<<30), next(1, 1e12), next(1, 1e12)}
		}
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	if len(all) == 0 {
		return nil, errors.New("rows: none")
	}
	return all, nil
}

// Open reads a file of rows, and returns its SHA-256 in hexadecimal.
func Open(name string) ([]Row, string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	h := sha256.New()
	all, err := Read(io.TeeReader(f, h))
	if err == nil {
		_, err = io.Copy(h, f) // what the reader left
	}
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", name, err)
	}
	return all, fmt.Sprintf("%x", h.Sum(nil)), nil
}
