package corpus

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
)

const generatedPrefix = "generated "

// Kinds are what Generate knows, besides "entropy:X".
var Kinds = []string{"json", "html", "text", "logs", "metrics", "csv", "binary", "protobuf", "zeros", "random", "compressed"}

// Generate makes n bytes of a kind, the same for the same seed. "entropy:0.3"
// mixes random bytes with runs of zeros so that 30 % of each KiB are random:
// a dial for how far data can be compressed.
func Generate(kind string, n int, seed uint64) (File, error) {
	if n < 1 || n > dirBytesMax {
		return File{}, fmt.Errorf("%d bytes of %s: want 1 to %d", n, kind, dirBytesMax)
	}
	g := &generator{r: rand.New(rand.NewPCG(seed, 0x706f727461736b)), at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	var unit func()
	switch kind {
	case "json":
		unit = g.json
	case "html":
		unit = g.html
	case "text":
		unit = g.sentence
	case "logs":
		unit = g.log
	case "metrics":
		unit = g.metric
	case "csv":
		unit = g.csv
	case "binary":
		unit = g.sensor
	case "protobuf":
		unit = g.protobuf
	case "zeros":
		unit = func() { g.b = append(g.b, make([]byte, 4096)...) }
	case "random":
		unit = func() { g.random(4096) }
	case "compressed":
		unit = g.compressed
	default:
		text, ok := strings.CutPrefix(kind, "entropy:")
		share, err := strconv.ParseFloat(text, 64)
		if !ok || err != nil || !(share >= 0 && share <= 1) {
			return File{}, fmt.Errorf("kind %q: want one of %s, or entropy:0 to entropy:1", kind, strings.Join(Kinds, ", "))
		}
		unit = func() {
			k := int(share * 1024)
			g.random(k)
			g.b = append(g.b, make([]byte, 1024-k)...)
		}
	}
	g.b = make([]byte, 0, n+8<<10)
	for len(g.b) < n {
		unit()
	}
	return File{Name: generatedPrefix + kind, Class: kind, Bytes: slices.Clip(g.b[:n])}, nil
}

// generator appends units to b.
type generator struct {
	r  *rand.Rand
	b  []byte
	at time.Time
	n  int
}

func (g *generator) printf(format string, args ...any) { g.b = fmt.Appendf(g.b, format, args...) }

func (g *generator) random(n int) {
	for range (n + 7) / 8 {
		g.b = binary.LittleEndian.AppendUint64(g.b, g.r.Uint64())
	}
	g.b = g.b[:len(g.b)-(8-n%8)%8]
}

// compressed is JSON in pieces of 16 KiB, each compressed: what archives,
// pictures and encrypted traffic look like to a compressor.
func (g *generator) compressed() {
	inner := generator{r: g.r, at: g.at, n: g.n}
	for len(inner.b) < 16<<10 {
		inner.json()
	}
	g.at, g.n = inner.at, inner.n
	var err error
	if g.b, err = compression.AppendCompress(g.b, inner.b, message.Zstd, compression.LevelFastest); err != nil {
		g.random(4096) // no coder refuses 16 KiB; whatever does, the data cannot be compressed
	}
}

// words follow Zipf's law, as words do.
var vocabulary = strings.Fields(`the of and to in a is that for it as was with be by on not he his but at are this have from
	or had an they which one you were all her she there would their we him been has when who will no more if out so up said
	what its about than into them can only other time new some could these two may first then do any like my now over such our
	man me even most made after also did many off before must well back through years much where your way down should because
	long each just state those people too mr how little good world make very year still see own work men day get here old life
	both between being under three never know same last another while us might great go come since against right came take used
	himself few house use place during high without again home around small however found mrs part school thought went say general
	once upon message broker partition offset segment latency throughput consumer producer`)

func (g *generator) word() string {
	u := g.r.Float64()
	return vocabulary[int(math.Pow(float64(len(vocabulary)), u))-1]
}

func (g *generator) words(n int) string {
	w := make([]string, n)
	for i := range w {
		w[i] = g.word()
	}
	return strings.Join(w, " ")
}

func (g *generator) sentence() {
	s := g.words(5 + g.r.IntN(20))
	g.printf("%s%s%s", strings.ToUpper(s[:1]), s[1:], []string{". ", ". ", "? ", ".\n"}[g.r.IntN(4)])
}

func (g *generator) tick() string {
	g.n++
	g.at = g.at.Add(time.Duration(g.r.IntN(5_000_000)) * time.Nanosecond)
	return g.at.Format("2006-01-02T15:04:05.000000Z")
}

var (
	services = []string{"orders", "payments", "inventory", "search", "gateway", "auth", "mail"}
	verbs    = []string{"GET", "GET", "GET", "POST", "PUT", "DELETE"}
	statuses = []int{200, 200, 200, 200, 201, 204, 304, 400, 404, 500, 503}
)

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

func (g *generator) json() {
	g.printf(`{"ts":"%s","id":"%016x","service":"%s","user":{"id":%d,"name":"%s"},"amount":%.2f,"tags":["%s","%s"],"ok":%t,"note":"%s"}`+"\n",
		g.tick(), g.r.Uint64(), pick(g.r, services), g.r.IntN(100_000), g.word(), g.r.ExpFloat64()*40, g.word(), g.word(), g.r.IntN(20) > 0, g.words(g.r.IntN(12)))
}

func (g *generator) html() {
	g.printf("<div class=\"row %s\" id=\"item-%d\"><h3><a href=\"/%s/%d\">%s</a></h3><p>%s</p><span class=\"price\">%.2f</span></div>\n",
		pick(g.r, services), g.n, pick(g.r, services), g.r.IntN(10_000), g.words(3), g.words(5+g.r.IntN(30)), g.r.ExpFloat64()*20)
	g.n++
}

func (g *generator) log() {
	g.printf("%s level=%s service=%s trace=%016x method=%s path=/%s/%d status=%d duration=%dus msg=\"%s\"\n",
		g.tick(), pick(g.r, []string{"info", "info", "info", "warn", "error", "debug"}), pick(g.r, services), g.r.Uint64(),
		pick(g.r, verbs), g.word(), g.r.IntN(10_000), pick(g.r, statuses), int(g.r.ExpFloat64()*900), g.words(3+g.r.IntN(6)))
}

func (g *generator) metric() {
	g.printf("http_request_duration_seconds_bucket{service=\"%s\",method=\"%s\",code=\"%d\",le=\"%g\"} %d\n",
		pick(g.r, services), pick(g.r, verbs), pick(g.r, statuses), pick(g.r, []float64{0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1}), g.n*7+g.r.IntN(50))
	g.n++
}

func (g *generator) csv() {
	g.printf("%d,%s,%s,%.3f,%.6f,%d\n", g.n, g.tick(), pick(g.r, services), 20+5*g.r.NormFloat64(), g.r.Float64(), g.r.IntN(1000))
}

// sensor is fixed-size records of slowly moving values, little-endian.
func (g *generator) sensor() {
	g.n++
	t := float64(g.n) / 50
	g.b = binary.LittleEndian.AppendUint32(g.b, uint32(g.n))
	for i := range 6 {
		v := 100*math.Sin(t+float64(i)) + g.r.NormFloat64()
		g.b = binary.LittleEndian.AppendUint16(g.b, uint16(int16(v*16)))
	}
}

// protobuf is length-delimited messages with fields 1 varint, 2 string,
// 3 double, 4 packed varints.
func (g *generator) protobuf() {
	m := binary.AppendUvarint([]byte{1 << 3}, uint64(g.n))
	name := g.word()
	m = append(binary.AppendUvarint(append(m, 2<<3|2), uint64(len(name))), name...)
	m = binary.LittleEndian.AppendUint64(append(m, 3<<3|1), math.Float64bits(g.r.ExpFloat64()))
	var packed []byte
	for range g.r.IntN(10) {
		packed = binary.AppendUvarint(packed, uint64(g.r.IntN(300)))
	}
	m = append(binary.AppendUvarint(append(m, 4<<3|2), uint64(len(packed))), packed...)
	g.b = append(binary.AppendUvarint(g.b, uint64(len(m))), m...)
	g.n++
}
