package adaptive

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/portask/portask/broker/fault"
)

var rewrite = flag.Bool("rewrite", false, "rewrite testdata")

// drive makes n decisions of two deciders by a fixed script with everything in
// it: bodies that change, conditions that do, late, lost and absurd observations.
func drive(r *Recorder, a *Artefact, n int) {
	x := uint64(42)
	rnd := func(n int) int {
		x = x*6364136223846793005 + 1442695040888963407
		return int(x>>33) % n
	}
	var ds [2]*Decider
	for i := range ds {
		ds[i] = New(a, Options{Topic: "orders", Producer: string(rune('a' + i)), HostScale: 1.3})
		ds[i].Record(r)
	}
	var late []Token
	for k := range n {
		d := ds[rnd(2)]
		if k%50 == 0 {
			d.SetConditions(Conditions{
				CPU: Reading{float64(rnd(120)) / 100, Local, 0}, Link: Reading{float64(rnd(1e9)), Broker, int64(rnd(2 * StaleAfter))},
				FanOut: Reading{float64(rnd(5)), Broker, 0}, Memory: Reading{float64(rnd(100)) / 100, Local, 0},
				Queue: Reading{float64(rnd(8)), Local, 0}, Disk: Reading{math.NaN(), Local, 0},
			})
		}
		if k%777 == 776 {
			d.SetDictionary(rnd(2) == 0)
		}
		size := 100 << rnd(11)
		var f Features
		if d.Wants(size) {
			f.Valid = true
			f.Pairs, f.Lanes, f.Plain = uint16(127+k/400*700), uint16(rnd(60)), uint16(rnd(33))
			f.Near, f.Far, f.Probes = uint16(rnd(150)), uint16(rnd(50)), 192
		}
		c := d.DecideFrom(size, f)
		late = append(late, c.Token)
		if len(late) < 5 {
			continue
		}
		t := late[rnd(5)]
		late = late[1:]
		out := size / (1 + int(t.arm)/2 + k/300%4)
		d.Observe(t, size, out, int64(size*(1+int(t.arm))+rnd(5000)), int64(rnd(3)*size))
		if k%97 == 0 {
			d.Observe(t, size, -1, math.MinInt64, math.MaxInt64)
		}
	}
}

func record(t testing.TB, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	r := NewRecorder(&b, Embedded(), 64<<20)
	drive(r, Embedded(), n)
	if err := r.Flush(); err != nil || r.Events() < uint64(n) {
		t.Fatalf("%d events, %v", r.Events(), err)
	}
	return b.Bytes()
}

func TestReplayIsTheSame(t *testing.T) {
	log := record(t, 3000)
	var first, second bytes.Buffer
	got, err := Replay(bytes.NewReader(log), Embedded(), &first, false)
	if err != nil || got.Differ != 0 || got.Decisions != 3000 || got.Streams != 2 || got.Truncated {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := Replay(bytes.NewReader(log), Embedded(), &second, false); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Fatalf("a second replay differs (%v)", err)
	}
	// A different decision is found.
	bad := bytes.Clone(log)
	o := Options{Topic: "orders", Producer: "a", HostScale: 1.3}
	at := logHeadBytes + bytes.Index(bad[logHeadBytes:], []byte("orders")) + len("orders") + 2
	bad[at+7] ^= 0x40 // the host's scale
	if got, err := Replay(bytes.NewReader(bad), Embedded(), nil, false); err != nil || got.Differ == 0 || got.First == 0 {
		t.Errorf("with another scale than %v: %+v, %v", o.HostScale, got, err)
	}
}

// The decisions on a small artefact of its own are the same on every machine:
// this file was written on one of them.
func TestDecisionsAreThoseOfEveryMachine(t *testing.T) {
	a, err := Parse(testArtefact)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	r := NewRecorder(&b, a, 64<<20)
	drive(r, a, 4000)
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	h := fnv.New64a()
	h.Write(b.Bytes())
	got := fmt.Appendf(nil, "%016x\n", h.Sum64())
	name := filepath.Join("testdata", "decisions.fnv")
	if *rewrite {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the log of 4,000 decisions has hash %s, not %s (-rewrite, if the policy changed)", got, want)
	}
}

// On arm64 the compiler joins x*y+z to one instruction, which rounds once, unless
// the code forbids it; then decisions would differ between machines.
func TestNoFusedInstructions(t *testing.T) {
	if os.Getenv("PORTASK_CROSS") == "" {
		t.Skip("it compiles everything for arm64, which takes a while: PORTASK_CROSS=1 runs it, as make lint does")
	}
	cmd := exec.Command("go", "build", "-gcflags=-S", "-o", os.DevNull, ".")
	cmd.Env = append(os.Environ(), "GOARCH=arm64", "GOOS=linux", "CGO_ENABLED=0", "GOFLAGS=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%.2000s", err, out)
	}
	if !bytes.Contains(out, []byte("FMULD")) {
		t.Fatal("the listing has no multiplication: is it one?")
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "FMADD") || strings.Contains(line, "FMSUB") || strings.Contains(line, "FNMSUB") || strings.Contains(line, "FNMADD") {
			t.Errorf("fused: %s", strings.TrimSpace(line))
		}
	}
}

// Producers that are opened at the same time are in the log in the order of their
// numbers, without which it could not be replayed.
func TestDecidersOpenedAtOnce(t *testing.T) {
	const workers, each = 8, 400
	var b bytes.Buffer
	r := NewRecorder(&b, Embedded(), 64<<20)
	var done sync.WaitGroup
	for range workers {
		done.Go(func() {
			for range each {
				r.opened(&Options{Topic: "orders", HostScale: 1, Arms: AllArms})
			}
		})
	}
	done.Wait()
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	got, err := Replay(bytes.NewReader(b.Bytes()), Embedded(), nil, false)
	if err != nil || got.Streams != workers*each || got.Truncated {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestALogIsBounded(t *testing.T) {
	var b bytes.Buffer
	r := NewRecorder(&b, Embedded(), 10_000)
	drive(r, Embedded(), 2000)
	if err := r.Flush(); err != nil || !errors.Is(r.Err(), ErrRecordFull) || b.Len() > 10_000 || b.Len() < 9_900 {
		t.Fatalf("%d bytes, %v, %v", b.Len(), r.Err(), err)
	}
	got, err := Replay(&b, Embedded(), nil, false)
	if err != nil || got.Differ != 0 || got.Decisions == 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAWriteThatFails(t *testing.T) {
	r := NewRecorder(failing{}, Embedded(), 1<<20)
	drive(r, Embedded(), 5000)
	if err := r.Flush(); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestLogsThatAreNone(t *testing.T) {
	log := record(t, 50)
	for name, tt := range map[string]struct {
		b    []byte
		code fault.Code
	}{
		"empty":          {nil, fault.Corrupted},
		"another file":   {[]byte("{\"format\": \"something else\"}"), fault.Corrupted},
		"newer":          {append([]byte("PADL\x02"), log[5:]...), fault.VersionUnsupported},
		"other artefact": {append([]byte("PADL\x0112345678"), log[13:]...), fault.Invalid},
		"unknown event":  {append(bytes.Clone(log), 99), fault.Corrupted},
		"unknown stream": {append(bytes.Clone(log), eventDictionary, 77, 1), fault.Corrupted},
		"long name":      {append(bytes.Clone(log), eventOpened, 2, 0xff, 0xff, 0xff, 0x7f), fault.TooLarge},
		"huge body":      {append(bytes.Clone(log), eventDecided, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0), fault.TooLarge},
		"endless number": {append(bytes.Clone(log), append([]byte{eventDecided}, bytes.Repeat([]byte{0xff}, 20)...)...), fault.Corrupted},
	} {
		if _, err := Replay(bytes.NewReader(tt.b), Embedded(), nil, false); !errors.Is(err, tt.code) {
			t.Errorf("%s: %v, want %s", name, err, tt.code)
		}
	}
	if got, err := Replay(bytes.NewReader(log[:len(log)-3]), Embedded(), nil, false); err != nil || !got.Truncated || got.Differ != 0 {
		t.Errorf("cut within an event: %+v, %v", got, err)
	}
}

func FuzzReplay(f *testing.F) {
	f.Add(record(f, 40))
	f.Add([]byte("PADL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var first, second bytes.Buffer
		x, err := Replay(bytes.NewReader(b), Embedded(), &first, true)
		y, again := Replay(bytes.NewReader(b), Embedded(), &second, true)
		if x != y || (err == nil) != (again == nil) || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Fatalf("%+v, %v and %+v, %v", x, err, y, again)
		}
	})
}
