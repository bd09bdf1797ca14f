package payload

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// Distribution is how sizes are spread over a range.
type Distribution string

// The distributions.
const (
	// Uniform: every size is as likely.
	Uniform Distribution = "uniform"
	// LogNormal: the logarithm is normal. The median is the geometric mean of
	// the ends of the range, which are three standard deviations away; what is
	// beyond counts as the end.
	LogNormal Distribution = "lognormal"
	// Zipf: a size is as likely as it is small, in proportion to 1/size.
	Zipf Distribution = "zipf"
)

// quantiles of a distribution are kept: sizes rarer than 1 in so many are left
// out.
const quantiles = 1 << 14

// SetDistribution changes how sizes are spread between the source's bounds. To
// be called before the source is used.
func (s *Source) SetDistribution(d Distribution) error {
	lo, hi := float64(s.min), float64(s.max)
	var at func(u float64) float64
	switch d {
	case Uniform:
		s.sizes = nil
		return nil
	case LogNormal:
		mu, sigma := (math.Log(lo)+math.Log(hi))/2, (math.Log(hi)-math.Log(lo))/6
		at = func(u float64) float64 { return math.Exp(mu + sigma*math.Sqrt2*math.Erfinv(2*u-1)) }
	case Zipf:
		at = func(u float64) float64 { return lo * math.Pow(hi/lo, u) }
	default:
		return fmt.Errorf("distribution %q: want uniform, lognormal or zipf", string(d))
	}
	s.sizes = make([]uint32, quantiles)
	for i := range s.sizes {
		s.sizes[i] = uint32(min(max(math.Round(at((float64(i)+0.5)/quantiles)), lo), hi))
	}
	return nil
}

// SizeWeight is a line of an empirical distribution.
type SizeWeight struct {
	Bytes  int
	Weight float64
}

// sizeWeightsMax bounds an empirical distribution, sizesLinesMax the lines of
// its file, comments and empty ones included.
const (
	sizeWeightsMax = 10_000
	sizesLinesMax  = 100_000
)

// ReadSizes reads an empirical distribution: lines of size and weight,
// separated by a comma, at most 10,000; those that begin with # are comments. An
// error names the line.
func ReadSizes(r io.Reader) ([]SizeWeight, error) {
	in := bufio.NewScanner(r)
	var all []SizeWeight
	total := 0.0
	n := 1
	for ; in.Scan(); n++ {
		if n > sizesLinesMax {
			return nil, fmt.Errorf("line %d: more than %d lines", n, sizesLinesMax)
		}
		text := strings.TrimSpace(in.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		if len(all) == sizeWeightsMax {
			return nil, fmt.Errorf("line %d: more than %d sizes", n, sizeWeightsMax)
		}
		size, weight, ok := strings.Cut(text, ",")
		b, err1 := strconv.Atoi(strings.TrimSpace(size))
		w, err2 := strconv.ParseFloat(strings.TrimSpace(weight), 64)
		if !ok || err1 != nil || err2 != nil || b < 0 || b > SizeMax || !(w >= 0 && w <= 1e12) {
			return nil, fmt.Errorf("line %d: %.60q: want size,weight with a size of at most %d", n, text, SizeMax)
		}
		total += w
		all = append(all, SizeWeight{max(b, HeaderBytes), w})
	}
	if err := in.Err(); err != nil { // a line of more than 64 KiB, for one
		return nil, fmt.Errorf("line %d: %w", n, err)
	}
	if total <= 0 {
		return nil, errors.New("no size has a weight")
	}
	return all, nil
}

// SetSizes makes sizes follow an empirical distribution, whose weights are not
// all 0; the bounds of the source no longer count. To be called before the
// source is used.
func (s *Source) SetSizes(all []SizeWeight) {
	total := 0.0
	for _, x := range all {
		total += x.Weight
	}
	s.sizes = make([]uint32, 0, quantiles)
	sum := 0.0
	for _, x := range all {
		sum += x.Weight
		for len(s.sizes) < quantiles && (float64(len(s.sizes))+0.5)/quantiles <= sum/total {
			s.sizes = append(s.sizes, uint32(x.Bytes))
		}
	}
	for len(s.sizes) < quantiles { // rounding
		s.sizes = append(s.sizes, uint32(all[len(all)-1].Bytes))
	}
}

// line is a body of its own.
type line struct{ file, from, bytes uint32 }

func (s *Source) line(r [2]uint64) line {
	hi, _ := bits.Mul64(r[1], uint64(len(s.lines)))
	return s.lines[hi]
}

// linesMax bounds what SplitLines keeps: 120 MB.
const linesMax = 10_000_000

// SplitLines makes every body a line of the files, without its end; sizes are
// then the lines'. Empty lines are left out, longer ones cut at SizeMax. To be
// called before the source is used.
func (s *Source) SplitLines() error {
	var all []line
	for i, f := range s.files {
		for at := 0; at < len(f); {
			n := len(f) - at
			if k := bytes.IndexByte(f[at:], '\n'); k >= 0 {
				n = k
			}
			if n > 0 {
				if len(all) == linesMax {
					return fmt.Errorf("more than %d lines", linesMax)
				}
				all = append(all, line{uint32(i), uint32(at), uint32(min(n, SizeMax-HeaderBytes))})
			}
			at += n + 1
		}
	}
	if len(all) == 0 {
		return errors.New("no line that is not empty")
	}
	s.lines = all
	return nil
}
