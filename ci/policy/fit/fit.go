// Package fit makes the artefact of the adaptive policy from rows: a profile for
// each training file, and the constants of the regression. The same rows give the
// same artefact: nothing here is random, and no map is iterated.
package fit

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/ci/policy/rows"
)

// profilesMost is the most profiles of an artefact; more files are merged. 48 of
// them take some 45 KiB.
const profilesMost = 48

// Model holds the constants of the regression. They were chosen by cross validation
// within the training rows (perflab policy train prints it), and never by the rows
// to check on.
var Model = adaptive.Model{OutWidth: 0.12, TimeWidth: 0.4, SignWidth: 0.15, Trust: 0.7, Shared: 0.7}

// columns gives the encoder's column in rows for each arm but Raw.
func columns() (c [adaptive.Arms]int, err error) {
	for a := adaptive.Arm(1); a < adaptive.Arms; a++ {
		c[a] = slices.Index(rows.Encoders, rows.Encoder{Algorithm: a.Algorithm(), Level: a.Level()})
		if c[a] < 0 {
			return c, fmt.Errorf("no column for arm %s", a)
		}
	}
	return c, nil
}

// means of a file: binary logarithms, NaN where it has no batch of a size.
type means struct {
	class, file string
	files       int // merged
	cost        [len(adaptive.Sizes)][adaptive.Arms][3]float64
	signs       [len(adaptive.Sizes)][]float64
	n           [len(adaptive.Sizes)]float64
}

// Artefact fits profiles to the idle rows given, which are those to train on.
func Artefact(train []rows.Row, m adaptive.Model, p adaptive.Provenance, reference [2]float64) ([]byte, error) {
	col, err := columns()
	if err != nil {
		return nil, err
	}
	var all []*means
	for i := range train {
		r := &train[i]
		if r.Load != train[0].Load {
			continue
		}
		s := slices.Index(adaptive.Sizes[:], r.Size)
		if s < 0 {
			continue
		}
		var x *means
		if n := len(all); n > 0 && all[n-1].file == r.File && all[n-1].class == r.Class {
			x = all[n-1]
		} else {
			x = &means{class: r.Class, file: r.File, files: 1}
			for s := range x.signs {
				x.signs[s] = make([]float64, adaptive.Axes)
			}
			all = append(all, x)
		}
		x.n[s]++
		for a := 1; a < adaptive.Arms; a++ {
			c := r.Cells[col[a]]
			n := float64(r.In)
			x.cost[s][a][0] += math.Log2(float64(c.Out) / n)
			x.cost[s][a][1] += math.Log2(float64(c.EncodeNs) / n)
			x.cost[s][a][2] += math.Log2(float64(c.DecodeNs) / n)
		}
		v := adaptive.Features{Valid: true, Signs: r.Signs}.Vector()
		for k := range v {
			x.signs[s][k] += v[k]
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no rows to train on")
	}
	for _, x := range all {
		for s := range x.n {
			for a := 1; a < adaptive.Arms; a++ {
				for k := range 3 {
					x.cost[s][a][k] /= x.n[s] // NaN where there are none
				}
			}
			for k := range x.signs[s] {
				x.signs[s][k] /= x.n[s]
			}
		}
	}
	fill(all)
	all = merge(all, profilesMost)

	a := adaptive.Artefact{Format: adaptive.Format, Version: adaptive.FormatVersion, Provenance: p, Reference: reference, Model: m, Sizes: adaptive.Sizes[:]}
	for arm := range adaptive.Arm(adaptive.Arms) {
		a.Arms = append(a.Arms, arm.String())
	}
	classes := map[string]float64{}
	for _, x := range all {
		classes[x.class] += float64(x.files)
	}
	round := func(v float64) int { return int(math.Round(min(max(v, -24), 24) * 100)) }
	for _, x := range all {
		// A class counts by the root of its files: ten kinds of logs are more than
		// one, and not ten times as likely as the only table.
		y := adaptive.Profile{Class: x.class, Weight: math.Round(1000*float64(x.files)/math.Sqrt(classes[x.class])) / 1000}
		for s := range adaptive.Sizes {
			var signs []int
			for _, v := range x.signs[s] {
				signs = append(signs, round(v))
			}
			y.Signs = append(y.Signs, signs)
			var costs [][]int
			for arm := 1; arm < adaptive.Arms; arm++ {
				c := x.cost[s][arm]
				costs = append(costs, []int{round(c[0]), round(c[1]), round(c[2])})
			}
			y.Costs = append(y.Costs, costs)
		}
		a.Profiles = append(a.Profiles, y)
	}
	return encode(&a)
}

// fill gives files that are too short for a size what the others say: that of the
// size below, and the mean step from it to this one.
func fill(all []*means) {
	for s := 1; s < len(adaptive.Sizes); s++ {
		step := func(get func(*means, int) float64) float64 {
			sum, n := 0.0, 0.0
			for _, x := range all {
				if x.n[s] > 0 {
					sum += get(x, s) - get(x, s-1)
					n++
				}
			}
			return sum / max(n, 1)
		}
		var cost [adaptive.Arms][3]float64
		for a := 1; a < adaptive.Arms; a++ {
			for k := range 3 {
				cost[a][k] = step(func(x *means, s int) float64 { return x.cost[s][a][k] })
			}
		}
		for _, x := range all {
			if x.n[s] > 0 {
				continue
			}
			for a := 1; a < adaptive.Arms; a++ {
				for k := range 3 {
					x.cost[s][a][k] = x.cost[s-1][a][k] + cost[a][k]
				}
			}
			copy(x.signs[s], x.signs[s-1])
		}
	}
}

// merge joins the two most alike, of one class if there are any, until few enough
// are left.
func merge(all []*means, most int) []*means {
	for len(all) > most {
		bi, bj, least := -1, -1, math.Inf(1)
		for i := range all {
			for j := i + 1; j < len(all); j++ {
				d := 0.0
				for s := range adaptive.Sizes {
					for a := 1; a < adaptive.Arms; a++ {
						for k := range 2 {
							dev := all[i].cost[s][a][k] - all[j].cost[s][a][k]
							d += dev * dev
						}
					}
				}
				if all[i].class != all[j].class {
					d *= 4
				}
				if d < least {
					bi, bj, least = i, j, d
				}
			}
		}
		x, y := all[bi], all[bj]
		wx, wy := float64(x.files), float64(y.files)
		mean := func(p *float64, q float64) { *p = (*p*wx + q*wy) / (wx + wy) }
		for s := range adaptive.Sizes {
			for a := 1; a < adaptive.Arms; a++ {
				for k := range 3 {
					mean(&x.cost[s][a][k], y.cost[s][a][k])
				}
			}
			for k := range x.signs[s] {
				mean(&x.signs[s][k], y.signs[s][k])
			}
		}
		x.files += y.files
		all = slices.Delete(all, bj, bj+1)
	}
	return all
}

// encode writes an artefact for people too: a line for each profile and size.
func encode(a *adaptive.Artefact) ([]byte, error) {
	profiles := a.Profiles
	a.Profiles = nil
	head, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Write(bytes.TrimSuffix(head, []byte("\"profiles\": null\n}")))
	b.WriteString("\"profiles\": [")
	for i, p := range profiles {
		if i > 0 {
			b.WriteByte(',')
		}
		class, err := json.Marshal(p.Class)
		if err != nil {
			return nil, err
		}
		signs, err := json.Marshal(p.Signs)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "\n{\"class\":%s,\"weight\":%v,\"signs\":%s,\"costs\":[", class, p.Weight, signs)
		for s, c := range p.Costs {
			if s > 0 {
				b.WriteByte(',')
			}
			costs, err := json.Marshal(c)
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(&b, "\n%s", costs)
		}
		b.WriteString("]}")
	}
	b.WriteString("]}\n")
	return b.Bytes(), nil
}

// Sort puts rows into the order that Artefact wants: those of a file together.
func Sort(all []rows.Row) {
	slices.SortStableFunc(all, func(a, b rows.Row) int {
		return cmp.Or(cmp.Compare(a.Load, b.Load), cmp.Compare(a.Class, b.Class), cmp.Compare(a.File, b.File), cmp.Compare(a.Size, b.Size), cmp.Compare(a.Index, b.Index))
	})
}
