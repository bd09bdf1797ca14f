package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// coder is a row of the cost table: an algorithm in one of its forms.
type coder struct {
	Algorithm  string // as message.Algorithm says, lz4-block, or zstd-dictionary
	Level      compression.Level
	compress   func(dst, src []byte) ([]byte, error)
	decompress func(dst, src []byte, declared int) ([]byte, error)
}

// Forms that are no algorithm of the wire.
const (
	lz4Block       = "lz4-block"
	zstdDictionary = "zstd-dictionary"
)

// coderNames are the algorithms of the table, from the lightest.
var coderNames = []string{"snappy", "lz4", lz4Block, "zstd", zstdDictionary, "gzip", "brotli"}

// unlimited lets decoders return what was put in: bodies of one byte repeated
// are no bombs here.
var unlimited = compression.Limits{Ratio: 1 << 30}

func newCoder(name string, level compression.Level, d *compression.Dictionary) (*coder, error) {
	c := &coder{Algorithm: name, Level: level}
	switch name {
	case lz4Block:
		c.compress = func(dst, src []byte) ([]byte, error) { return compression.AppendLZ4Block(dst, src, level) }
		c.decompress = func(dst, src []byte, n int) ([]byte, error) {
			return compression.AppendDecompressLZ4Block(dst, src, n, unlimited)
		}
	case zstdDictionary:
		c.compress = func(dst, src []byte) ([]byte, error) { return d.AppendCompress(dst, src, level) }
		c.decompress = func(dst, src []byte, n int) ([]byte, error) { return d.AppendDecompress(dst, src, n, unlimited) }
	default:
		a, err := message.ParseAlgorithm(name)
		if err != nil || a == message.None {
			return nil, usagef("--algorithm %q: want %s", name, joinOr(coderNames))
		}
		c.compress = func(dst, src []byte) ([]byte, error) { return compression.AppendCompress(dst, src, a, level) }
		c.decompress = func(dst, src []byte, n int) ([]byte, error) {
			return compression.AppendDecompress(dst, src, a, n, unlimited)
		}
	}
	return c, nil
}

// cell is what one coder does to the bodies of one size.
type cell struct {
	Algorithm   string  `json:"algorithm"`
	Level       string  `json:"level"`
	SizeBytes   int     `json:"size_bytes"` // asked for; bodies of whole lines are shorter
	Bodies      int     `json:"bodies"`
	Bytes       int64   `json:"bytes"`
	Compressed  int64   `json:"compressed_bytes"`
	Ratio       float64 `json:"ratio"`
	EncodeNs    float64 `json:"encode_ns_per_byte"`
	DecodeNs    float64 `json:"decode_ns_per_byte"`
	EncodeLoops int     `json:"encode_rounds"`
	DecodeLoops int     `json:"decode_rounds"`
}

// groupBytes is how much is done between two readings of the clock, which then
// cost nothing beside it.
const groupBytes = 64 << 10

// measure runs c over the bodies, for about the time given in each direction but
// once over all of them at least, and checks that they come back as they were. A
// group of bodies counts with the fastest of its rounds: what other programs take
// from the processor is no cost of the algorithm.
func measure(ctx context.Context, c *coder, bodies [][]byte, spend time.Duration) (*cell, error) {
	out := &cell{Algorithm: c.Algorithm, Level: c.Level.String(), Bodies: len(bodies)}
	most := 0
	for _, b := range bodies {
		most = max(most, len(b))
		out.Bytes += int64(len(b))
	}
	encoded := make([][]byte, len(bodies))
	var buf []byte
	back := make([]byte, 0, most+16)
	for i, b := range bodies {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var err error
		if buf, err = c.compress(buf[:0], b); err != nil {
			return nil, err
		}
		encoded[i] = bytes.Clone(buf)
		out.Compressed += int64(len(buf))
		if back, err = c.decompress(back[:0], buf, len(b)); err != nil {
			return nil, err
		}
		if !bytes.Equal(back, b) {
			return nil, fault.New(fault.Internal, "compress bench").WithField(c.Algorithm).
				WithDetail("a body of %d bytes did not come back as it was", len(b))
		}
	}
	out.Ratio = float64(out.Bytes) / float64(out.Compressed)
	var err error
	out.EncodeNs, out.EncodeLoops, err = timed(ctx, bodies, spend, func(i int) error {
		buf, err = c.compress(buf[:0], bodies[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	out.DecodeNs, out.DecodeLoops, err = timed(ctx, bodies, spend, func(i int) error {
		back, err = c.decompress(back[:0], encoded[i], len(bodies[i]))
		return err
	})
	return out, err
}

// timed returns ns per byte of fn over all bodies and how often they were gone
// through.
func timed(ctx context.Context, bodies [][]byte, spend time.Duration, fn func(i int) error) (ns float64, rounds int, err error) {
	type group struct {
		first, end int
		bytes      int
		fastest    time.Duration
	}
	var groups []group
	g := group{fastest: 1 << 62}
	for i, b := range bodies {
		g.bytes += len(b)
		g.end = i + 1
		if g.bytes >= groupBytes || i == len(bodies)-1 {
			groups = append(groups, g)
			g = group{first: i + 1, fastest: 1 << 62}
		}
	}
	begin := time.Now()
	for {
		for k := range groups {
			g := &groups[k]
			if err := ctx.Err(); err != nil {
				return 0, 0, err
			}
			start := time.Now()
			if rounds > 0 && start.Sub(begin) >= spend {
				return sum(groups, func(g group) float64 { return float64(g.fastest) }) / sum(groups, func(g group) float64 { return float64(g.bytes) }), rounds, nil
			}
			for i := g.first; i < g.end; i++ {
				if err := fn(i); err != nil {
					return 0, 0, err
				}
			}
			g.fastest = min(g.fastest, time.Since(start))
		}
		rounds++
	}
}

func sum[T any](xs []T, of func(T) float64) (total float64) {
	for _, x := range xs {
		total += of(x)
	}
	return total
}

// spread returns at most n bodies of at most most bytes in all, but one at least,
// evenly from all.
func spread(bodies [][]byte, n int, most int64) [][]byte {
	total := int64(0)
	for _, b := range bodies {
		total += int64(len(b))
	}
	if len(bodies) == 0 {
		return nil
	}
	if fit := int(int64(len(bodies)) * most / max(1, total)); total > most {
		n = min(n, max(1, fit))
	}
	if len(bodies) <= n {
		return bodies
	}
	out := make([][]byte, n)
	for i := range out {
		out[i] = bodies[i*len(bodies)/n]
	}
	return out
}

// frontier marks the cells that no other of the same size beats in both the time
// to encode and the ratio.
func frontier(cells []*cell) map[*cell]bool {
	out := make(map[*cell]bool)
	for _, c := range cells {
		out[c] = !slices.ContainsFunc(cells, func(o *cell) bool {
			return o.SizeBytes == c.SizeBytes && (o.Ratio > c.Ratio && o.EncodeNs <= c.EncodeNs || o.Ratio >= c.Ratio && o.EncodeNs < c.EncodeNs)
		})
	}
	return out
}

func (c *cell) String() string { return fmt.Sprintf("%s %s", c.Algorithm, c.Level) }
