package sysmetrics

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"
)

func TestOwnProcess(t *testing.T) {
	p, err := OpenProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	before, err := p.Sample()
	if err != nil {
		t.Fatal(err)
	}
	// On a busy machine 30 ms of the clock may be a third of that of processor
	// time: arithmetic goes on until its cost shows, and must not cost more
	// than there are processors.
	began, after := time.Now(), before
	for after.CPU-before.CPU < 20*time.Millisecond && time.Since(began) < 30*time.Second {
		burn(10 * time.Millisecond)
		if after, err = p.Sample(); err != nil {
			t.Fatal(err)
		}
	}
	if d, most := after.CPU-before.CPU, time.Since(began)*time.Duration(runtime.NumCPU())+20*time.Millisecond; d < 20*time.Millisecond || d > most {
		t.Errorf("arithmetic for %v cost %v on %d processors", time.Since(began), d, runtime.NumCPU())
	}
	if after.RSSBytes < 1<<20 || after.RSSBytes > 1<<34 {
		t.Errorf("RSS %d bytes", after.RSSBytes)
	}
	if after.Threads < 1 {
		t.Errorf("%d threads", after.Threads)
	}
	if n, err := p.ResidentBytes(); err != nil || n < 1<<20 || n > 4*after.RSSBytes {
		t.Errorf("resident %d bytes beside RSS %d: %v", n, after.RSSBytes, err)
	}
	if c, err := p.CPUTime(); err != nil || c < after.CPU {
		t.Errorf("CPU time %v after %v: %v", c, after.CPU, err)
	}
}

func burn(d time.Duration) {
	x := uint64(1)
	for end := time.Now().Add(d); time.Now().Before(end); {
		for range 10_000 {
			x = x*6364136223846793005 + 1
		}
	}
	runtime.KeepAlive(x)
}

// helper makes this test binary a child that lives until its input ends.
const helper = "SYSMETRICS_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(helper) != "" {
		os.Stdout.WriteString("ready\n")
		bufio.NewReader(os.Stdin).ReadByte()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestOtherProcessUntilItEnds(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helper+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	p, err := OpenProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Sample()
	if err != nil || s.CPU <= 0 {
		t.Fatalf("sample of a living child: %+v, %v", s, err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Sample(); !errors.Is(err, ErrGone) {
		t.Errorf("sample of an ended child: %v, want ErrGone", err)
	}
	if _, err := p.ResidentBytes(); !errors.Is(err, ErrGone) {
		t.Errorf("resident bytes of an ended child: %v, want ErrGone", err)
	}
	if _, err := p.CPUTime(); !errors.Is(err, ErrGone) {
		t.Errorf("CPU time of an ended child: %v, want ErrGone", err)
	}
}

func TestReusedPidIsGone(t *testing.T) {
	p, err := OpenProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	p.created-- // as if another process had had this pid before
	if _, err := p.Sample(); !errors.Is(err, ErrGone) {
		t.Errorf("reused pid: %v, want ErrGone", err)
	}
}

func TestHost(t *testing.T) {
	a, err := Host()
	if err != nil {
		t.Fatal(err)
	}
	burn(20 * time.Millisecond)
	b, err := Host()
	if err != nil {
		t.Fatal(err)
	}
	if b.Busy < a.Busy || b.MemoryBytes <= 0 || b.AvailableBytes > b.MemoryBytes {
		t.Errorf("host went from %+v to %+v", a, b)
	}
	if s := StealShare(a, b); s < 0 || s > 1 {
		t.Errorf("steal share %v", s)
	}
	if m := ThisMachine(); m.Cores < 1 || m.Go == "" {
		t.Errorf("machine %+v", m)
	}
}

func TestStealShare(t *testing.T) {
	a := HostSample{Busy: time.Second, Idle: time.Second}
	b := HostSample{Busy: 2 * time.Second, Idle: 2 * time.Second, IOWait: time.Second, Steal: time.Second}
	if got := StealShare(a, b); got != 0.25 {
		t.Errorf("steal share %v, want 0.25", got)
	}
	if got := StealShare(a, a); got != 0 {
		t.Errorf("of no time: %v, want 0", got)
	}
}

func TestParseRollup(t *testing.T) {
	const text = "00400000-7fff00000000 ---p 00000000 00:00 0    [rollup]\nRss:                1536 kB\nPss:    1 kB\n"
	if n, ok := parseRollup([]byte(text)); !ok || n != 1536<<10 {
		t.Errorf("got %d, %v", n, ok)
	}
	for _, bad := range []string{"", "Rss: kB\n", "Rss: -\xff kB\n", "Pss: 5 kB\n"} {
		if n, ok := parseRollup([]byte(bad)); ok {
			t.Errorf("%q: got %d", bad, n)
		}
	}
}
