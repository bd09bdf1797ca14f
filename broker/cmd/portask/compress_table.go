package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/config/document"
)

func logRatio(b []byte) float64 { return math.Log(compression.EstimateRatio(b)) }

func expMean(logs float64, n int) float64 { return math.Exp(logs / float64(max(1, n))) }

// barCells is the width of a bar, in characters.
const barCells = 12

// bar draws a part of barCells in eighths of a character.
func bar(part float64) string {
	eighths := int(math.Round(min(1, max(0, part)) * barCells * 8))
	s := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		s += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return s + strings.Repeat(" ", barCells-utf8.RuneCountInString(s))
}

// scale maps values to bars: linear from 1, or logarithmic between the least and
// the most.
type scale struct{ least, most float64 }

func newScale(cells []*cell, of func(*cell) float64) scale {
	s := scale{math.Inf(1), 0}
	for _, c := range cells {
		s.least, s.most = min(s.least, of(c)), max(s.most, of(c))
	}
	return s
}

func (s scale) fromOne(v float64) string { return bar((v - 1) / max(s.most-1, 0.1)) }

// log leaves an eighth for the least, so that each row has a bar.
func (s scale) log(v float64) string {
	return bar(0.02 + 0.98*math.Log(v/s.least)/max(math.Log(s.most/s.least), 0.1))
}

// table writes the run for people: a block for each size, rows from the lightest
// algorithm to the heaviest, a bar beside each number.
func (r *bench) table(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s in %d file(s), split by %s; %s, one goroutine\n", sizeText(r.Bytes), len(r.Files), r.Split, r.System.CPU)
	encode := newScale(r.Cells, func(c *cell) float64 { return c.EncodeNs })
	decode := newScale(r.Cells, func(c *cell) float64 { return c.DecodeNs })
	best := frontier(r.Cells)
	for _, s := range r.Sizes {
		var cells []*cell
		for _, c := range r.Cells {
			if c.SizeBytes == s.SizeBytes {
				cells = append(cells, c)
			}
		}
		ratio := newScale(cells, func(c *cell) float64 { return c.Ratio })
		fmt.Fprintf(&b, "\n%s: %d bodies measured, %s", document.FormatSize(int64(s.SizeBytes)), s.Bodies, sizeText(s.Bytes))
		if s.Dictionary > 0 {
			fmt.Fprintf(&b, "; dictionary of %s", sizeText(int64(s.Dictionary)))
		}
		fmt.Fprintf(&b, "; a sample says %.1f\n", s.Estimate)
		fmt.Fprintf(&b, "  %-25s %6s %-*s %7s %-*s %7s %s\n", "", "ratio", barCells, "", "encode", barCells, "ns/B", "decode", "ns/B")
		for _, c := range cells {
			mark := " "
			if best[c] {
				mark = "*"
			}
			line := fmt.Sprintf("%s %-16s %-8s %6.2f %s %7s %s %7s %s", mark, c.Algorithm, c.Level,
				c.Ratio, ratio.fromOne(c.Ratio), nsText(c.EncodeNs), encode.log(c.EncodeNs), nsText(c.DecodeNs), decode.log(c.DecodeNs))
			b.WriteString(strings.TrimRight(line, " ") + "\n")
		}
	}
	b.WriteString("\n* no other row of the size has a better ratio and encodes faster. Bars: ratio from 1, times logarithmic.\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// nsText has three digits that say something.
func nsText(ns float64) string {
	switch {
	case ns < 10:
		return fmt.Sprintf("%.2f", ns)
	case ns < 100:
		return fmt.Sprintf("%.1f", ns)
	}
	return fmt.Sprintf("%.0f", ns)
}
