package fleet

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/pace"
)

var testToken = []byte("0123456789abcdef")

// The bytes of a frame and of a proof: what another version must speak.
func TestGolden(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		(&conn{c: a}).write(&frame{Kind: kindPong, Clock: 258})
		a.Close()
	}()
	got, err := io.ReadAll(b)
	if err != nil || string(got) != "\x00\x00\x00\x1b{\"kind\":\"pong\",\"clock\":258}" {
		t.Errorf("%q, %v", got, err)
	}
	p := proof(testToken, "agent", []byte("a"), []byte("c"))
	if hex.EncodeToString(p) != "4f3ccf3e07232bbf41d3ec859586be9df966fe3ac16ef799c283bd778e60fdf4" {
		t.Errorf("proof %x", p)
	}
	if bytes.Equal(p, proof(testToken, "coordinator", []byte("a"), []byte("c"))) {
		t.Error("one side's proof is the other's")
	}
}

// Memory is taken as bytes arrive: a frame that promises its limit and brings
// little costs little; one that promises more costs nothing.
func TestReadFrameIsBounded(t *testing.T) {
	promise := binary.BigEndian.AppendUint32(nil, tellBytesMax)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := readFrame(bytes.NewReader(append(promise, '{')), tellBytesMax); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v", err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("%d bytes taken for a promise", took)
	}
	for name, in := range map[string]string{
		"too long": "\xff\xff\xff\xff{}", "garbage": "\x00\x00\x00\x03{]}", "no kind": "\x00\x00\x00\x02{}", "empty": "\x00\x00\x00\x00", "short": "\x00\x00",
	} {
		if f, err := readFrame(strings.NewReader(in), 1024); err == nil {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if _, err := readFrame(strings.NewReader("\x00\x00\x04\x01"), 1024); !errors.Is(err, errTooLong) {
		t.Errorf("error %v", err)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x1b{\"kind\":\"pong\",\"clock\":258}"))
	f.Add([]byte("\x00\x00\x00\x2b{\"kind\":\"interval\",\"interval\":{\"sent\":1}}  "))
	f.Add([]byte("\x00\x00\x00\x40{\"kind\":\"result\",\"result\":{\"schema\":2,\"measured\":{\"phases\":[]}}} "))
	h := pace.NewHistogram()
	h.RecordValue(5000)
	body, err := json.Marshal(&frame{Kind: kindInterval, Interval: &interval{Histograms: load.Histograms{E2E: h}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := readFrame(bytes.NewReader(b), helloBytesMax)
		if err == nil && (x.Kind == "" || len(b) < 4) {
			t.Errorf("%+v", x)
		}
	})
}

// A coordinator and an agent that know different tokens find out, both.
func TestProofs(t *testing.T) {
	for _, tt := range []struct {
		name  string
		other []byte
		ok    bool
	}{{"same", testToken, true}, {"another", []byte("0123456789abcdeg"), false}} {
		a, c := net.Pipe()
		admitted := make(chan error, 1)
		go func() { admitted <- (&conn{c: a, max: helloBytesMax}).admit(testToken, "v1") }()
		version, err := (&conn{c: c, max: helloBytesMax}).introduce(tt.other)
		there := <-admitted
		if tt.ok && (err != nil || there != nil || version != "v1") {
			t.Errorf("%s: %q, %v, %v", tt.name, version, err, there)
		}
		if !tt.ok && (!errors.Is(err, errRefused) || !errors.Is(there, errRefused)) {
			t.Errorf("%s: %v, %v", tt.name, err, there)
		}
		a.Close()
		c.Close()
	}
	// What only says that it is an agent is not believed.
	a, c := net.Pipe()
	go func() {
		x := &conn{c: a, max: helloBytesMax}
		x.write(&frame{Kind: kindHello, Protocol: protocolVersion, Nonce: newNonce()})
		f, _ := x.read(time.Now().Add(time.Second))
		x.write(&frame{Kind: kindHello, Proof: f.Proof}) // reflected
	}()
	if _, err := (&conn{c: c, max: helloBytesMax}).introduce(testToken); !errors.Is(err, errRefused) {
		t.Errorf("error %v", err)
	}
}

// The true offset lies within the bound, wherever in the round trip the agent
// looked at its clock, and the shortest round trip counts.
func TestClockBound(t *testing.T) {
	const ahead = 1_000_000
	for _, in := range []int64{0, 30, 50, 99, 100} {
		b := nearer(bound{}, true, 5000, 5100, 5000+in+ahead)
		if off := b.offset - ahead; off < -b.err || off > b.err || b.err != 50 {
			t.Errorf("read after %d of 100: %+v", in, b)
		}
		if worse := nearer(b, false, 6000, 6200, 0); worse != b {
			t.Errorf("a longer round trip won: %+v", worse)
		}
		if better := nearer(b, false, 6000, 6010, 6005+ahead); better != (bound{ahead, 5}) {
			t.Errorf("a shorter one lost: %+v", better)
		}
	}
}

// Intervals are put together by the second, and told when all agents are past it.
func TestGather(t *testing.T) {
	var told []load.Interval
	var counts []int64
	a, b := &member{}, &member{}
	s := testScenario(t)
	g := newGather(Options{Scenario: s, OnInterval: func(v load.Interval, h load.Histograms) {
		told, counts = append(told, v), append(counts, h.E2E.TotalCount())
	}}, 2)
	add := func(m *member, start, end float64, n uint64) {
		v := &interval{Interval: load.Interval{Start: start, End: end, Sent: n, Delivered: n, Generator: 0.5}}
		v.Histograms.E2E = pace.NewHistogram()
		v.Histograms.E2E.RecordValues(1000, int64(n))
		g.add(m, v)
	}
	add(a, 0, 0.9, 10)
	add(a, 0.9, 1.9, 11)
	add(a, 1.9, 2.9, 12)
	if len(told) != 0 {
		t.Fatalf("told before the other agent: %v", told)
	}
	add(b, 0, 0.91, 20)
	add(b, 0.91, 2.9, 40) // missed a tick
	if len(told) != 1 || told[0].Sent != 30 || counts[0] != 30 || told[0].End != 0.91 || told[0].Generator < 0.98 || told[0].Generator > 1 {
		t.Errorf("%+v, %v", told, counts)
	}
	g.end(b)
	add(a, 2.9, 3.1, 1)
	g.end(a)
	g.finish()
	var sent uint64
	for i, v := range told {
		sent += v.Sent
		if counts[i] != int64(v.Sent) {
			t.Errorf("interval %d: %d latencies of %d messages", i, counts[i], v.Sent)
		}
	}
	if sent != 94 || len(g.series.List()) != len(told) || len(told) != 4 && len(told) != 3 {
		t.Errorf("%d sent in %d intervals", sent, len(told))
	}
}
