// Package sim replays recorded costs through ways of choosing an encoder, and
// finds what each would have cost beyond the best choice in hindsight: its regret.
//
// A stream is a sequence of batches of one size, under conditions. The cost of a
// batch by an encoder, in nanoseconds of an idle processor, is
//
//	(encode + base) · price + out · (fan-out / link + disk) + decode
//	price = 1 / (1 - load), at most 10
//
// with base 2.5 µs, disk 1 ns/B, and encode and decode as measured, times what
// they were longer by with the processors as busy. An output that is not smaller
// than its input is not sent. The regret of a stream is the cost of all its batches
// over that of the cheapest encoder of each, less 1. The adaptive policy pays for
// its own time too: Work.
package sim

import (
	"math"
	"slices"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/ci/policy/rows"
)

const (
	baseNs = 2500
	diskNs = 1
)

// Raw is the column after those of rows.Encoders.
var (
	Raw     = len(rows.Encoders)
	columns = Raw + 1
)

// Conditions of a batch.
type Conditions struct {
	Load   int     // percent of the processors busy
	Mbit   float64 // of the link
	FanOut float64
}

// Loads, links and fan-outs of the stationary scenarios.
var (
	Loads   = []int{10, 50, 80, 90}
	Links   = []float64{20, 100, 1000, 10000}
	FanOuts = []float64{1, 3}
)

func (c Conditions) price() float64  { return min(1/(1-float64(c.Load)/100), 10) }
func (c Conditions) weight() float64 { return c.FanOut*8000/c.Mbit + diskNs }

// Batch is one batch of a stream.
type Batch struct {
	Row *rows.Row
	Conditions
}

// Data are rows, arranged.
type Data struct {
	Files []File
	// Slower is the factor on encoder i's times at loads, fitted to the rows that
	// were measured with the burner.
	loads  []int
	encode [][]float64
	decode [][]float64
}

// File is one file's idle batches by size.
type File struct {
	Class, Name string
	Batches     [len(adaptive.Sizes)][]*rows.Row
}

// Arrange groups rows. Those of the least load are what costs are; the others
// give the factors.
func Arrange(all []rows.Row) *Data {
	d := &Data{}
	idle := math.MaxInt
	for i := range all {
		idle = min(idle, all[i].Load)
	}
	type key struct {
		file        string
		size, index int
	}
	base := map[key]*rows.Row{}
	for i := range all {
		r := &all[i]
		r.Cells = sendable(r)
		if r.Load != idle {
			if !slices.Contains(d.loads, r.Load) {
				d.loads = append(d.loads, r.Load)
			}
			continue
		}
		s := slices.Index(adaptive.Sizes[:], r.Size)
		if s < 0 {
			continue
		}
		if n := len(d.Files); n == 0 || d.Files[n-1].Name != r.File {
			d.Files = append(d.Files, File{Class: r.Class, Name: r.File})
		}
		f := &d.Files[len(d.Files)-1]
		f.Batches[s] = append(f.Batches[s], r)
		base[key{r.File, r.Size, r.Index}] = r
	}
	slices.Sort(d.loads)
	for _, load := range d.loads {
		enc, dec := make([][]float64, Raw), make([][]float64, Raw)
		for i := range all {
			r := &all[i]
			b := base[key{r.File, r.Size, r.Index}]
			if r.Load != load || b == nil {
				continue
			}
			for e := range Raw {
				enc[e] = append(enc[e], float64(r.Cells[e].EncodeNs)/float64(b.Cells[e].EncodeNs))
				dec[e] = append(dec[e], float64(r.Cells[e].DecodeNs)/float64(b.Cells[e].DecodeNs))
			}
		}
		d.encode, d.decode = append(d.encode, medians(enc)), append(d.decode, medians(dec))
	}
	return d
}

// sendable is what becomes of outputs that no reader would take, of more than
// 1000 to 1: zstd's are filled up to that, gzip's and brotli's are made anew with
// lz4, as compression.Policy does.
func sendable(r *rows.Row) []rows.Cell {
	cells := slices.Clone(r.Cells)
	lz4 := r.Cells[column(message.LZ4, compression.LevelFastest)]
	for e := range cells {
		c := &cells[e]
		if int64(r.In) <= c.Out*compression.DefaultRatio {
			continue
		}
		switch rows.Encoders[e].Algorithm {
		case message.Zstd:
			c.Out = int64(r.In+compression.DefaultRatio-1) / compression.DefaultRatio
		case message.Gzip, message.Brotli:
			c.Out, c.EncodeNs, c.DecodeNs = lz4.Out, c.EncodeNs+lz4.EncodeNs, lz4.DecodeNs
		}
	}
	return cells
}

func medians(xs [][]float64) []float64 {
	out := make([]float64, len(xs))
	for i, x := range xs {
		out[i] = 1
		if len(x) > 0 {
			slices.Sort(x)
			out[i] = max(x[len(x)/2], 1)
		}
	}
	return out
}

// slower is how much longer encoder e takes at a load: between the loads that
// were measured it is interpolated, from 1 at 10 percent on.
func (d *Data) slower(table [][]float64, e, load int) float64 {
	at, f := 10, 1.0
	for i, l := range d.loads {
		if load <= l {
			return f + (table[i][e]-f)*max(float64(load-at), 0)/float64(l-at)
		}
		at, f = l, table[i][e]
	}
	return f
}

// Outcome is what a batch would cost by each encoder, and what it was made of.
type Outcome struct {
	cost []float64 // by column; raw last
	best int
	// bigger holds the cost of an output that was made and then not sent.
	unsent []float64
	encode []float64
	decode []float64
}

// outcomes computes all there is to know of a stream.
func (d *Data) outcomes(stream []Batch) []Outcome {
	out := make([]Outcome, len(stream))
	type key struct {
		r *rows.Row
		c Conditions
	}
	seen := map[key]int{}
	for i, b := range stream {
		k := key{b.Row, b.Conditions}
		if j, ok := seen[k]; ok {
			out[i] = out[j]
			continue
		}
		seen[k] = i
		o := Outcome{cost: make([]float64, columns), unsent: make([]float64, columns), encode: make([]float64, columns), decode: make([]float64, columns)}
		price, weight, n := b.price(), b.weight(), float64(b.Row.In)
		for e := range Raw {
			c := b.Row.Cells[e]
			o.encode[e] = float64(c.EncodeNs) * d.slower(d.encode, e, b.Load)
			o.decode[e] = float64(c.DecodeNs) * d.slower(d.decode, e, b.Load)
			spent := (o.encode[e] + baseNs) * price
			o.unsent[e] = spent + n*weight + 0.02*n
			o.cost[e] = spent + float64(c.Out)*weight + o.decode[e]
			if c.Out >= int64(b.Row.In) {
				o.cost[e] = o.unsent[e]
			}
		}
		o.cost[Raw] = (0.02*n+baseNs)*price + n*weight + 0.02*n
		o.unsent[Raw] = o.cost[Raw]
		o.best = Raw
		for e := range Raw {
			if o.cost[e] < o.cost[o.best] {
				o.best = e
			}
		}
		out[i] = o
	}
	return out
}

// Stream is a sequence of batches, which belongs to a cell of the table.
type Stream struct {
	Cell    string
	Size    int // index in adaptive.Sizes
	Batches []Batch
}

// StreamBatches is the length of a stationary stream. A file's batches are
// repeated in their order.
const StreamBatches = 256

// Stationary are the streams of all cells: size x load x link x fan-out, one for
// each file that has batches of the size.
func (d *Data) Stationary(batches int) (all []Stream) {
	for s := range adaptive.Sizes {
		for _, load := range Loads {
			for _, link := range Links {
				for _, fan := range FanOuts {
					c := Conditions{load, link, fan}
					for i := range d.Files {
						if rs := d.Files[i].Batches[s]; len(rs) > 0 {
							x := Stream{Cell: cell(s, c), Size: s}
							for k := range batches {
								x.Batches = append(x.Batches, Batch{rs[k%len(rs)], c})
							}
							all = append(all, x)
						}
					}
				}
			}
		}
	}
	return all
}

// Drifting streams change file four times, every 64 batches, in each cell; and,
// in cells of their own, also load and link, every 96.
func (d *Data) Drifting() (all []Stream) {
	rng := uint64(1)
	pick := func(n int) int {
		rng = rng*6364136223846793005 + 1442695040888963407
		return int(rng>>33) % n
	}
	const sequences, segments, segment, weather = 6, 5, 64, 96
	for s := range adaptive.Sizes {
		var files []*File
		for i := range d.Files {
			if len(d.Files[i].Batches[s]) > 0 {
				files = append(files, &d.Files[i])
			}
		}
		if len(files) < 2 {
			continue
		}
		make := func(at func(k int) Conditions) (bs []Batch) {
			last := -1
			for range segments {
				f := pick(len(files))
				if f == last {
					f = (f + 1) % len(files)
				}
				last = f
				rs := files[f].Batches[s]
				for k := range segment {
					bs = append(bs, Batch{rs[k%len(rs)], at(len(bs))})
				}
			}
			return bs
		}
		for _, load := range Loads {
			for _, link := range Links {
				for _, fan := range FanOuts {
					c := Conditions{load, link, fan}
					for range sequences {
						all = append(all, Stream{cell(s, c), s, make(func(int) Conditions { return c })})
					}
				}
			}
		}
		for _, fan := range FanOuts {
			for range 4 * sequences {
				var cs [segments*segment/weather + 1]Conditions
				for i := range cs {
					cs[i] = Conditions{Loads[pick(len(Loads))], Links[pick(len(Links))], fan}
				}
				x := Stream{Cell: weatherCell(s, fan), Size: s}
				x.Batches = make(func(k int) Conditions { return cs[k/weather] })
				all = append(all, x)
			}
		}
	}
	return all
}
