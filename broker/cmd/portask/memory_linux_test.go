package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portask/portask/broker/mempool"
)

// in-group DIR PROGRAM ARGS... runs a program that sees the control groups of
// DIR: its file "cgroup" as /proc/self/cgroup, "mountinfo" likewise, and what is
// below "fs" as /sys/fs/cgroup. It needs mounts of its own (see inGroup), whose
// end is that of the process.
func init() {
	programs["in-group"] = func() {
		dir := os.Args[1]
		must := func(what string, err error) {
			if err != nil {
				fmt.Fprintln(os.Stderr, "in-group:", what, err)
				os.Exit(125)
			}
		}
		must("private mounts", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		must("fs", unix.Mount(filepath.Join(dir, "fs"), "/sys/fs/cgroup", "", unix.MS_BIND|unix.MS_REC, ""))
		for _, name := range []string{"cgroup", "mountinfo"} {
			must(name, unix.Mount(filepath.Join(dir, name), fmt.Sprintf("/proc/%d/%s", os.Getpid(), name), "", unix.MS_BIND, ""))
		}
		path, err := exec.LookPath(os.Args[2])
		must("look", err)
		must("exec", syscall.Exec(path, os.Args[2:], os.Environ()))
	}
}

// inGroup prepares a program that sees the control groups of a file tree. Where
// the system gives processes no mounts of their own the test is skipped.
func inGroup(t *testing.T, files map[string]string, env []string, args ...string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "fs"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	path, err := exec.LookPath("in-group")
	if err != nil {
		t.Fatal(err)
	}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(path, append([]string{dir}, args...)...)
		cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
			return strings.HasPrefix(v, "GOMEMLIMIT=") || strings.HasPrefix(v, "GOMAXPROCS=") || strings.HasPrefix(v, "PORTASK_")
		}), env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
		return cmd
	}
	if out, err := command("true").CombinedOutput(); err != nil {
		t.Skipf("the system gives processes no mounts of their own: %v %s", err, out)
	}
	return command(args...)
}

// group2 is a tree of cgroup v2 with these files in the group of the process.
func group2(files map[string]string) map[string]string {
	tree := map[string]string{
		"cgroup":    "0::/svc/portask\n",
		"mountinfo": "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n",
	}
	for name, text := range files {
		tree["fs/svc/portask/"+name] = text
	}
	return tree
}

// group1 is the same of cgroup v1.
func group1(files map[string]string) map[string]string {
	tree := map[string]string{
		"cgroup": "4:memory:/docker/x\n1:cpu,cpuacct:/docker/x\n0::/\n",
		"mountinfo": "33 31 0:30 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n" +
			"32 31 0:29 /docker/x /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n",
	}
	for name, text := range files {
		dir, _, _ := strings.Cut(name, ".")
		if dir == "cpu" {
			dir = "cpu,cpuacct"
		}
		tree["fs/"+dir+"/"+name] = text
	}
	return tree
}

// The program sees the limits of its group before it does anything else.
func TestProcessObeysItsGroup(t *testing.T) {
	if !mempool.OffHeap {
		t.Skip("chunks lie on the heap here: other limits")
	}
	// 108 MiB: 16 of tail, 64 of producers' credit, 24 of the one loop, 4 free.
	for _, tt := range []struct {
		name string
		tree map[string]string
		env  []string
		args []string
		want string
	}{
		{"v2", group2(map[string]string{"memory.max": "1073741824\n", "memory.high": "max\n"}), nil, nil,
			"813MiB of the control group's 1GiB"},
		{"v2, memory.high", group2(map[string]string{"memory.max": "max\n", "memory.high": "1073741824\n"}), nil, nil,
			"813MiB of the control group's 1GiB"},
		{"v1", group1(map[string]string{"memory.limit_in_bytes": "1073741824\n"}), nil, nil,
			"813MiB of the control group's 1GiB"},
		{"v2, small", group2(map[string]string{"memory.max": "134217728\n"}), nil, nil,
			"32MiB of the control group's 128MiB"},
		{"v2, small, with as little for batches", group2(map[string]string{"memory.max": "134217728\n"}), nil,
			[]string{"--produce-memory", "8MiB", "--tail-memory", "4MiB"}, "75MiB of the control group's 128MiB"},
		{"v2, GOMEMLIMIT", group2(map[string]string{"memory.max": "1073741824\n"}), []string{"GOMEMLIMIT=200MiB"}, nil,
			"200MiB of GOMEMLIMIT"},
		{"no limit", group2(nil), nil, nil, "none: no control group limits memory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := inGroup(t, tt.tree, tt.env, append([]string{"portask", "config", "show", "-o", "json", "--loops", "1"}, tt.args...)...)
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err, string(out))
			}
			var all []configSetting
			if err := json.Unmarshal(out, &all); err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(all, func(s configSetting) bool { return s.Key == "performance.memory_limit" })
			if i < 0 || all[i].Value != "auto" || all[i].Effective != tt.want {
				t.Errorf("%+v, want %s", all[i], tt.want)
			}
		})
	}
	t.Run("processors", func(t *testing.T) {
		for _, tree := range []map[string]string{
			group2(map[string]string{"cpu.max": "200000 100000\n"}),
			group1(map[string]string{"cpu.cfs_quota_us": "200000\n", "cpu.cfs_period_us": "100000\n"}),
		} {
			out, err := inGroup(t, tree, nil, "portask", "config", "show").Output()
			if err != nil {
				t.Fatal(err)
			}
			// Two processors by the quota, so one loop, however many there are.
			if !strings.Contains(string(out), "auto (1)") {
				t.Errorf("event loops:\n%s", out)
			}
		}
	})
	t.Run("doctor", func(t *testing.T) {
		tree := group2(map[string]string{"memory.max": "134217728\n", "cpu.max": "50000 100000\n"})
		out, err := inGroup(t, tree, nil, "portask", "doctor", "--data", t.TempDir(), "-o", "json").Output()
		if err != nil {
			t.Fatal(err, string(out))
		}
		var all []finding
		if err := json.Unmarshal(out, &all); err != nil {
			t.Fatal(err)
		}
		seen := 0
		for _, f := range all {
			if f.Check == "memory limit" && f.Verdict == warn && strings.Contains(f.Value, "128MiB (cgroup v2)") ||
				f.Check == "processor limit" && f.Verdict == warn && strings.Contains(f.Value, "0.5 processors") {
				seen++
			}
		}
		if seen != 2 {
			t.Errorf("%s", out)
		}
	})
	t.Run("serve", func(t *testing.T) {
		cmd := inGroup(t, group2(map[string]string{"memory.max": "134217728\n"}), nil,
			"portask", "serve", "--listen", "127.0.0.1:0", "--engine", "memlog", "--memory", "16MiB", "--loops", "1")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		b := startBroker(t, cmd)
		b.stop()
		for _, want := range []string{`limit=32MiB from="of the control group's 128MiB"`, "lower performance.produce_memory"} {
			if !strings.Contains(stderr.String(), want) {
				t.Errorf("the log does not say %q:\n%s", want, stderr.String())
			}
		}
	})
}

// started is a running broker process.
type started struct {
	t   *testing.T
	cmd *exec.Cmd
}

// startBroker starts cmd, which is a `portask serve`, and waits until it serves.
func startBroker(t *testing.T, cmd *exec.Cmd) *started {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line := make([]byte, 256)
	n, err := out.Read(line)
	if err != nil || !bytes.Contains(line[:n], []byte("serving on")) {
		t.Fatalf("it does not serve: %q, %v, %v", line[:n], err, cmd.Stderr)
	}
	return &started{t: t, cmd: cmd}
}

func (s *started) stop() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		s.t.Error(err)
	}
}

// idleMax is how much more memory an idle broker may hold than a Go program that
// does nothing.
const idleMax = 10 << 20

// resident is the memory of an idle process.
type resident struct {
	all int64 // resident set, page by page
	own int64 // of it, what is not a file's: heap, stacks, chunks
}

// TestIdleBrokerIsSmall holds idle programs on an empty directory against a Go
// program that waits for a signal: the core of the broker (testdata/core) by all
// of its resident memory, pages of the program file included; and the product by
// the memory of its own, since how much of the program file lies in memory is
// what the kernel mapped around the pages that starting touched, and is shared.
func TestIdleBrokerIsSmall(t *testing.T) {
	if testing.Short() {
		t.Skip("builds three programs")
	}
	dir := t.TempDir()
	nothing := filepath.Join(dir, "nothing.go")
	if err := os.WriteFile(nothing, []byte(`package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	os.Stdout.WriteString("portask: serving on nothing\n")
	<-c
}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	build := func(name, what string) string {
		path := filepath.Join(dir, name)
		cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-o", path, what)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
		return path
	}
	commands := map[string]*exec.Cmd{
		"nothing": exec.Command(build("nothing", nothing)),
		"core":    exec.Command(build("core", "./testdata/core"), filepath.Join(dir, "core-data")),
		"whole":   exec.Command(build("portask", "."), "serve", "--listen", "127.0.0.1:0", "--data", filepath.Join(dir, "data")),
	}
	var mu sync.Mutex
	held := map[string]resident{}
	t.Run("idle", func(t *testing.T) {
		for name, cmd := range commands {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				r := idleMemory(t, cmd)
				mu.Lock()
				defer mu.Unlock()
				held[name] = r
			})
		}
	})
	if t.Failed() {
		return
	}
	if len(held) < len(commands) {
		t.Skip("the system does not tell resident memory page by page")
	}
	base, core, whole := held["nothing"], held["core"], held["whole"]
	for name, r := range map[string]resident{"core": core, "portask serve": whole} {
		t.Logf("%s: %d KiB resident more than a Go program that does nothing, %d KiB of it not of files", name, (r.all-base.all)>>10, (r.own-base.own)>>10)
	}
	if n := core.all - base.all; n > idleMax {
		t.Errorf("the idle core holds %d KiB more than a Go program that does nothing, at most %d are allowed", n>>10, idleMax>>10)
	}
	if n := whole.own - base.own; n > idleMax {
		t.Errorf("an idle broker holds %d KiB of its own more than a Go program that does nothing, at most %d are allowed", n>>10, idleMax>>10)
	}
}

// idleMemory starts a program and returns the least that it holds in three
// seconds after it had the time to settle: on a busy machine it gives back what
// only its start needed when it has its turn.
func idleMemory(t *testing.T, cmd *exec.Cmd) resident {
	t.Helper()
	b := startBroker(t, cmd)
	defer b.stop()
	least := resident{math.MaxInt64, math.MaxInt64}
	for began := time.Now(); time.Since(began) < settleAfter+4*time.Second || least.all == math.MaxInt64; {
		rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", cmd.Process.Pid))
		if err != nil {
			t.Skip("the system does not tell resident memory page by page: ", err)
		}
		if time.Since(began) > settleAfter+time.Second {
			least.all = min(least.all, rollupBytes(t, rollup, "Rss:"))
			least.own = min(least.own, rollupBytes(t, rollup, "Anonymous:"))
		}
		time.Sleep(50 * time.Millisecond) // the process cannot tell that it is idle
	}
	return least
}

// rollupBytes reads a line "Rss:   1234 kB".
func rollupBytes(t *testing.T, rollup []byte, name string) int64 {
	t.Helper()
	for line := range bytes.Lines(rollup) {
		if f := bytes.Fields(line); len(f) == 3 && string(f[0]) == name {
			kib, err := strconv.ParseInt(string(f[1]), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("no %s in\n%s", name, rollup)
	return 0
}
