package message

import (
	"bufio"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

const sampleTime = 1_700_000_000_000_000 // 2023-11-14T22:13:20Z in µs

// sample is a batch with everything in it that a batch can have.
type sample struct {
	name      string
	keyHashes bool
	encoding  Encoding
	producer  Producer
	messages  []Message
	compress  func(dst, src []byte) ([]byte, Algorithm)
	// stamped, if base is not NoOffset
	base  Offset
	time  int64
	epoch uint64
	seed  Seed
}

func samples() []sample {
	id := ulid.MustParse("01HF7YAT00TVQJ4TKTZ6K9XQ5D")
	return []sample{
		{
			name:     "one",
			messages: []Message{{Value: []byte("hello"), Timestamp: sampleTime}},
			base:     NoOffset,
		},
		{
			name:     "one-stamped",
			messages: []Message{{Value: []byte("hello"), Timestamp: sampleTime}},
			base:     123456789, time: sampleTime + 1500, epoch: 3, seed: 0xfedcba9876543210,
		},
		{
			name:      "full",
			keyHashes: true,
			encoding:  JSON,
			producer:  Producer{ID: 0x1122334455667788, Epoch: 0x99aa, Sequence: 0xbbccddee},
			messages: []Message{
				{
					ID: id, Key: []byte("k1"), Value: []byte(`{"n":1}`), Timestamp: sampleTime,
					Headers:  []Header{{Key: "trace", Value: []byte{0, 0xff}}, {Key: "", Value: []byte{}}},
					Priority: 5, DueTime: sampleTime + 60_000_000, Expiry: sampleTime + 3_600_000_000,
				},
				{
					Key: []byte{}, Value: nil, Timestamp: sampleTime - 2_000_000,
					Priority: 5, DueTime: sampleTime + 60_000_000, Expiry: sampleTime + 3_600_000_000,
				},
				{
					Value: []byte{}, Timestamp: sampleTime + 1001,
					Priority: 5, DueTime: sampleTime + 60_000_000, Expiry: sampleTime + 3_600_000_000,
				},
			},
			base: 1 << 40, time: sampleTime + 99, epoch: 1 << 33, seed: 42,
		},
		{
			name:      "worked-example", // printed in FORMAT.md
			keyHashes: true,
			producer:  Producer{ID: 7, Epoch: 1, Sequence: 40},
			messages: []Message{
				{Key: []byte("k1"), Value: []byte("hello"), Timestamp: sampleTime, Priority: 2},
				{Key: []byte("k2"), Value: nil, Timestamp: sampleTime + 250, Priority: 2,
					Headers: []Header{{Key: "h", Value: []byte("v")}}},
			},
			base: 1000, time: sampleTime + 4000, epoch: 3, seed: 9,
		},
		{
			// The "compression" drops a run of 'a', so that the golden bytes
			// depend on no library.
			name:     "compressed",
			messages: []Message{{Value: []byte(strings.Repeat("a", 100)), Timestamp: -1}},
			compress: func(dst, src []byte) ([]byte, Algorithm) {
				return append(dst, src[:len(src)-100]...), Zstd
			},
			base: NoOffset,
		},
	}
}

func (s *sample) build(tb testing.TB) []byte {
	tb.Helper()
	b := NewBuilder(DefaultLimits())
	b.KeyHashes, b.Encoding = s.keyHashes, s.encoding
	for i := range s.messages {
		if err := b.Append(&s.messages[i]); err != nil {
			tb.Fatal(err)
		}
	}
	out, err := b.Finish(nil, s.producer, s.compress)
	if err != nil {
		tb.Fatal(err)
	}
	if s.base != NoOffset {
		Stamp(out, s.base, s.time, s.epoch, s.seed)
	}
	return out
}

func sampleNamed(tb testing.TB, name string) *sample {
	tb.Helper()
	for _, s := range samples() {
		if s.name == name {
			return &s
		}
	}
	tb.Fatalf("no sample %q", name)
	return nil
}

func TestGolden(t *testing.T) {
	for _, s := range samples() {
		t.Run(s.name, func(t *testing.T) {
			got := s.build(t)
			path := filepath.Join("testdata", "golden", s.name+".txt")
			if *update {
				writeHex(t, path, fmt.Sprintf("batch %q, seed %#x", s.name, uint64(s.seed)), got)
			}
			want := readHex(t, path)
			if hex.EncodeToString(got) != hex.EncodeToString(want) {
				t.Errorf("got\n%swant\n%s", hex.Dump(got), hex.Dump(want))
			}
			s.checkBack(t, want)
		})
	}
}

// checkBack reads the golden bytes, not those just built.
func (s *sample) checkBack(t *testing.T, batch []byte) {
	t.Helper()
	e, section, err := Validate(batch, s.seed, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again := AppendEnvelope(nil, &e, s.seed); string(again) != string(batch[:EnvelopeBytes]) {
		t.Errorf("envelope encoded again:\n%swant\n%s", hex.Dump(again), hex.Dump(batch[:EnvelopeBytes]))
	}
	if e.ProducerID != s.producer.ID || e.ProducerEpoch != s.producer.Epoch || e.BaseSequence != s.producer.Sequence {
		t.Errorf("producer %d %d %d, want %v", e.ProducerID, e.ProducerEpoch, e.BaseSequence, s.producer)
	}
	base := max(s.base, 0)
	if e.BaseOffset != base || e.AppendTime != s.time || e.Epoch != s.epoch {
		t.Errorf("stamped %d %d %d, want %d %d %d", e.BaseOffset, e.AppendTime, e.Epoch, base, s.time, s.epoch)
	}
	if e.EndOffset() != base+Offset(len(s.messages)) || e.Attributes.Encoding() != s.encoding {
		t.Errorf("end %d, encoding %v", e.EndOffset(), e.Attributes.Encoding())
	}
	if s.compress != nil {
		return // the golden body is not that of a real algorithm
	}
	_, body, err := Split(batch, &e)
	if err != nil {
		t.Fatal(err)
	}
	var r Reader
	r.Reset(&e, body, nil)
	r.SetSection(&section)
	for i, want := range s.messages {
		want.Offset, want.Encoding = base+Offset(i), s.encoding
		var got Message
		if !r.Next(&got) {
			t.Fatalf("message %d: %v", i, r.Err())
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("message %d: got %+v, want %+v", i, got, want)
		}
	}
	if r.Next(&Message{}) || r.Err() != nil {
		t.Errorf("after the last message: %v", r.Err())
	}
}

func writeHex(t *testing.T, path, title string, b []byte) {
	t.Helper()
	var out strings.Builder
	fmt.Fprintf(&out, "# %s\n", title)
	for i := 0; i < len(b); i += 16 {
		fmt.Fprintf(&out, "%04x  % x\n", i, b[i:min(i+16, len(b))])
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// readHex reads lines of a position, two spaces and spaced bytes; what follows
// two more spaces is a remark. Lines that start with '#' are skipped.
func readHex(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return parseHex(t, string(text))
}

func parseHex(t *testing.T, text string) []byte {
	t.Helper()
	var b []byte
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.SplitN(line, "  ", 3)
		if len(fields) < 2 || fields[0] != fmt.Sprintf("%04x", len(b)) {
			t.Fatalf("line %q: want the position %04x and bytes", line, len(b))
		}
		x, err := hex.DecodeString(strings.ReplaceAll(fields[1], " ", ""))
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		b = append(b, x...)
	}
	return b
}

// The example in FORMAT.md is the golden batch, byte by byte.
func TestFormatDocument(t *testing.T) {
	text, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "```hex\n")
	block, _, ok2 := strings.Cut(rest, "```")
	if !ok || !ok2 {
		t.Fatal("FORMAT.md has no block of hex")
	}
	got, want := parseHex(t, block), readHex(t, filepath.Join("testdata", "golden", "worked-example.txt"))
	if string(got) != string(want) {
		t.Errorf("FORMAT.md has\n%swant\n%s", hex.Dump(got), hex.Dump(want))
	}
}
