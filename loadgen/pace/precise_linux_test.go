package pace

import (
	"os"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// policies counts the process's threads by scheduling policy.
func policies(t *testing.T) map[uint32]int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	n := map[uint32]int{}
	for _, x := range all {
		tid, _ := strconv.Atoi(x.Name())
		if a, err := unix.SchedGetAttr(tid, 0); err == nil { // else it has ended
			n[a.Policy]++
		}
	}
	return n
}

// A priority is taken where the process may, said as it is, and given back.
func TestPriority(t *testing.T) {
	before := policies(t)
	if before[schedNormal] == 0 || len(before) != 1 {
		t.Skipf("the test was started with another policy: %v", before)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own := func() *unix.SchedAttr {
		a, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	start := *own()
	_, restore, exact, priority := precise()
	if during := own(); !exact || priority == "" || (priority == Ordinary) != (*during == start) {
		t.Errorf("exact %v, priority %q: %+v", exact, priority, during)
	}
	restore()
	if after := own(); *after != start {
		t.Errorf("left at %+v, began at %+v", after, start)
	}

	lower, err := RaiseProcess()
	if err != nil {
		if n := policies(t); n[schedRoundRobin] != 0 {
			t.Errorf("not allowed, and threads are at %v", n)
		}
		t.Skip(err)
	}
	if n := policies(t); n[schedRoundRobin] == 0 || len(n) != 1 {
		t.Errorf("raised: %v", n)
	}
	// Threads made meanwhile are given back as well.
	ended := make(chan struct{})
	for range 4 {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			<-ended
		}()
	}
	lower()
	close(ended)
	if n := policies(t); n[schedNormal] == 0 || len(n) != 1 {
		t.Errorf("lowered: %v", n)
	}
}
