package payload

import (
	"fmt"
	"math"
	"testing"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/corpus"
)

// sent measures n values of a source, as one of several producers sends them to
// partitions in turn.
func sent(t testing.TB, s *Source, e message.Encoding, n, partitions int) Stats {
	t.Helper()
	x, err := s.Encoder(e)
	if err != nil {
		t.Fatal(err)
	}
	m := NewMeter(0, 1, 64<<10)
	var v []byte
	for i := range n {
		if v, err = x.Append(v[:0], Header{Partition: uint32(i % partitions), Sequence: uint64(i), Intended: int64(i) * 100_000}); err != nil {
			t.Fatal(err)
		}
		m.Sent(uint32(i%partitions), v)
	}
	st, err := Summarise([]*Meter{m})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func generated(t testing.TB, kind string, lo, hi int) *Source {
	t.Helper()
	f, err := corpus.Generate(kind, 4<<20, 1)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(1, 1, lo, hi, [][]byte{f.Bytes})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStats(t *testing.T) {
	noise := sent(t, generated(t, "random", 1024, 1024), message.Raw, 5000, 4)
	if noise.Entropy < 7.7 || noise.Zstd1 > 1.05 || noise.Zstd1Single > 1.02 || noise.MeanBytes != 1024 || noise.Messages != 5000 || noise.Bytes != 5000*1024 ||
		noise.Sizes != (Sizes{1024, 1024, 1024, 1024, 1024, 1024}) {
		t.Errorf("noise: %+v", noise)
	}
	if noise.SampledBatches < 10 || noise.SampledMessages != 64*noise.SampledBatches || noise.SampledBytes != noise.SampledMessages*1024 {
		t.Errorf("samples are no batches of 64 KiB: %+v", noise)
	}
	zeros := sent(t, generated(t, "zeros", 1024, 1024), message.Raw, 5000, 4)
	if zeros.Entropy > 1 || zeros.Zstd1 < 20 || zeros.Zstd1Single < 5 || zeros.Zstd1Single > zeros.Zstd1 {
		t.Errorf("zeros: %+v", zeros)
	}
	if x := sent(t, generated(t, "random", 1024, 1024), message.JSON, 1000, 1); x.MeanBytes < 1300 || x.Entropy > 6.5 {
		t.Errorf("noise in JSON: %+v", x)
	}
	// Batches have what single messages have not: other messages.
	if x := sent(t, generated(t, "json", 300, 300), message.Raw, 5000, 4); x.Zstd1 < 1.5*x.Zstd1Single {
		t.Errorf("JSON: %+v", x)
	}
	if x := sent(t, generated(t, "text", 100, 100), message.Raw, 3, 4); x.Messages != 3 || x.SampledBatches != 1 || x.SampledMessages != 1 || x.Entropy == 0 || x.Zstd1 == 0 {
		t.Errorf("three messages: %+v", x)
	}
	if x, err := Summarise([]*Meter{NewMeter(0, 1, 1)}); err != nil || x != (Stats{}) {
		t.Errorf("nothing: %+v, %v", x, err)
	}
	t.Log(noise)
}

// The dial turns both: what is random in the payload, and what zstd makes of
// it, step by step from end to end.
func TestEntropyDial(t *testing.T) {
	var last Stats
	for i := range 11 {
		kind := fmt.Sprintf("entropy:%.1f", float64(i)/10)
		st := sent(t, generated(t, kind, 1024, 1024), message.Raw, 2000, 1)
		if i > 0 && (st.Zstd1 >= last.Zstd1 || st.Entropy <= last.Entropy || st.Zstd1Single > last.Zstd1Single) {
			t.Errorf("%s: %v; before it %v", kind, st, last)
		}
		if i == 0 && st.Zstd1 < 15 || i == 10 && (st.Zstd1 > 1.05 || st.Entropy < 7.7) {
			t.Errorf("%s, an end of the dial: %v", kind, st)
		}
		last = st
	}
}

// Samples are spread over a long run, stay bounded in number, and are the same
// for the same messages.
func TestMeterSamplesTheWholeRun(t *testing.T) {
	const n = 1 << 18
	v := make([]byte, 256)
	measure := func(producer, producers int) *Meter {
		m := NewMeter(producer, producers, 16<<10)
		for i := range n {
			v[0], v[1], v[2] = byte(i), byte(i>>8), byte(i>>16)
			m.Sent(uint32(i%3), v)
		}
		return m
	}
	for _, producers := range []int{1, 2, 64, 1000} {
		a, b := measure(0, producers), measure(0, producers)
		most := max(1, sampledBatches/producers)
		if len(a.samples) > most || len(a.samples) < (most+1)/2 || len(a.samples)+len(a.spare) > most+2 {
			t.Errorf("%d producers: %d samples, %d spare; at most %d", producers, len(a.samples), len(a.spare), most)
		}
		var at []int
		for i, s := range a.samples {
			if string(s.bytes) != string(b.samples[i].bytes) || len(s.bytes) != 16<<10 || len(s.ends) != 64 {
				t.Fatalf("sample %d of %d bytes, %d messages", i, len(s.bytes), len(s.ends))
			}
			at = append(at, int(s.bytes[0])|int(s.bytes[1])<<8|int(s.bytes[2])<<16)
		}
		if last := at[len(at)-1]; producers < 64 && last < n/2 {
			t.Errorf("%d producers: the last sample is of message %d of %d", producers, last, n)
		}
	}
	if m := measure(64, 1000); len(m.samples) != 0 || m.bytes != n*256 {
		t.Errorf("one of a thousand, not among the sampled: %d samples, %d bytes", len(m.samples), m.bytes)
	}
}

// Quantiles of sizes are right to 1 %, and bounded whatever the size.
func TestSizeQuantiles(t *testing.T) {
	m := NewMeter(0, 1, 64<<10)
	v := make([]byte, 4<<20)
	for i := 1; i <= 20_000; i++ {
		m.Sent(0, v[:i])
	}
	st, err := Summarise([]*Meter{m})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ got, want int }{{st.Sizes.Min, 1}, {st.Sizes.P10, 2000}, {st.Sizes.P50, 10_000}, {st.Sizes.P90, 18_000}, {st.Sizes.P99, 19_800}, {st.Sizes.Max, 20_000}} {
		if math.Abs(float64(x.got-x.want)) > 0.01*float64(x.want) {
			t.Errorf("%+v: %d, want %d", st.Sizes, x.got, x.want)
		}
	}
	for n := range 1 << 21 {
		if b := bucket(n); n < 128 && middle(b) != n || math.Abs(float64(middle(b)-n)) > 0.009*float64(n) {
			t.Fatalf("%d bytes count as %d", n, middle(b))
		}
	}
	m.Sent(0, v)
	m.Sent(0, nil)
	if st, err = Summarise([]*Meter{m}); err != nil || st.Sizes.Max != 4<<20 || st.Sizes.Min != 0 {
		t.Errorf("%+v, %v", st.Sizes, err)
	}
}

func TestMeterAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("counts are the race detector's")
	}
	m := NewMeter(0, 1, 4<<10)
	v := make([]byte, 1024)
	for range 100_000 {
		m.Sent(0, v)
	}
	if n := testing.AllocsPerRun(50_000, func() { m.Sent(0, v) }); n > 0 {
		t.Errorf("%v allocations a message", n)
	}
}

func BenchmarkMeter(b *testing.B) {
	m := NewMeter(0, 1, 64<<10)
	v := make([]byte, 1024)
	b.ReportAllocs()
	for b.Loop() {
		m.Sent(0, v)
	}
}
