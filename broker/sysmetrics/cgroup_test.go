package sysmetrics

import (
	"errors"
	"io/fs"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/portask/portask/broker/fault"
)

// files makes a file tree.
func files(pairs ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return m
}

const (
	mount2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
	mounts = "31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n" +
		"32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 master:2 - cgroup cgroup rw,cpu,cpuacct\n" +
		"33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)

func TestLimitsOfFileTrees(t *testing.T) {
	for _, tt := range []struct {
		name string
		tree fstest.MapFS
		want CgroupLimits
	}{
		{"no control groups at all", files(), CgroupLimits{}},
		{"v2, no limit anywhere", files(
			"proc/self/cgroup", "0::/user.slice\n", "proc/self/mountinfo", mount2,
			"sys/fs/cgroup/user.slice/memory.max", "max\n", "sys/fs/cgroup/user.slice/memory.high", "max\n",
			"sys/fs/cgroup/user.slice/cpu.max", "max 100000\n",
		), CgroupLimits{Memory: Cgroup{2, "/sys/fs/cgroup/user.slice"}, CPU: Cgroup{2, "/sys/fs/cgroup/user.slice"}}},
		{"v2, the lowest of the way up", files(
			"proc/self/cgroup", "0::/a/b/c\n", "proc/self/mountinfo", mount2,
			"sys/fs/cgroup/a/memory.max", "536870912\n", "sys/fs/cgroup/a/memory.high", "max\n", "sys/fs/cgroup/a/cpu.max", "max 100000\n",
			"sys/fs/cgroup/a/b/memory.max", "1073741824\n", "sys/fs/cgroup/a/b/memory.high", "402653184\n", "sys/fs/cgroup/a/b/cpu.max", "150000 100000\n",
			"sys/fs/cgroup/a/b/c/memory.max", "max\n", "sys/fs/cgroup/a/b/c/cpu.max", "400000 200000\n",
			"sys/fs/cgroup/a/sibling/memory.max", "1\n",
		), CgroupLimits{MemoryBytes: 512 << 20, MemoryHighBytes: 384 << 20, CPUs: 1.5,
			Memory: Cgroup{2, "/sys/fs/cgroup/a/b/c"}, CPU: Cgroup{2, "/sys/fs/cgroup/a/b/c"}}},
		{"v2, a container with a namespace of its own", files(
			"proc/self/cgroup", "0::/\n", "proc/self/mountinfo", mount2,
			"sys/fs/cgroup/memory.max", "268435456\n", "sys/fs/cgroup/cpu.max", "50000 100000\n",
		), CgroupLimits{MemoryBytes: 256 << 20, CPUs: 0.5, Memory: Cgroup{2, "/sys/fs/cgroup"}, CPU: Cgroup{2, "/sys/fs/cgroup"}}},
		{"v2, a group outside of the namespace", files(
			"proc/self/cgroup", "0::/../other\n", "proc/self/mountinfo", mount2,
			"sys/fs/cgroup/memory.max", "1000000\n",
		), CgroupLimits{MemoryBytes: 1_000_000, Memory: Cgroup{2, "/sys/fs/cgroup"}, CPU: Cgroup{2, "/sys/fs/cgroup"}}},
		{"v2, a limit of nothing is one", files(
			"proc/self/cgroup", "0::/\n", "proc/self/mountinfo", mount2, "sys/fs/cgroup/memory.max", "0\n",
		), CgroupLimits{MemoryBytes: 1, Memory: Cgroup{2, "/sys/fs/cgroup"}, CPU: Cgroup{2, "/sys/fs/cgroup"}}},
		{"v1, unlimited in the kernel's words", files(
			"proc/self/cgroup", "4:memory:/\n1:cpu,cpuacct:/\n0::/\n", "proc/self/mountinfo", mounts,
			"sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n",
			"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n",
		), CgroupLimits{Memory: Cgroup{1, "/sys/fs/cgroup/memory"}, CPU: Cgroup{1, "/sys/fs/cgroup/cpu,cpuacct"}}},
		{"v1, limits of a parent", files(
			"proc/self/cgroup", "4:memory:/docker/x\n1:cpu,cpuacct:/docker/x\n", "proc/self/mountinfo", mounts,
			"sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "134217728\n",
			"sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "9223372036854771712\n",
			"sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", "200000\n", "sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us", "100000\n",
			"sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us", "-1\n", "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us", "100000\n",
		), CgroupLimits{MemoryBytes: 128 << 20, CPUs: 2,
			Memory: Cgroup{1, "/sys/fs/cgroup/memory/docker/x"}, CPU: Cgroup{1, "/sys/fs/cgroup/cpu,cpuacct/docker/x"}}},
		{"v1, a container that sees its path from outside, and a limit above it", files(
			"proc/self/cgroup", "4:memory:/docker/abc\n",
			"proc/self/mountinfo", `33 31 0:30 /docker/abc /sys/fs/cgroup/my\040memory ro - cgroup cgroup rw,memory`+"\n",
			"sys/fs/cgroup/my memory/memory.limit_in_bytes", "9223372036854771712\n",
			"sys/fs/cgroup/my memory/memory.stat", "cache 0\nhierarchical_memory_limit 67108864\nhierarchical_memsw_limit 9223372036854771712\n",
		), CgroupLimits{MemoryBytes: 64 << 20, Memory: Cgroup{1, "/sys/fs/cgroup/my memory"}}},
		{"both: memory by v1, cpu by v2", files(
			"proc/self/cgroup", "4:memory:/m\n0::/u\n",
			"proc/self/mountinfo", "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
			"sys/fs/cgroup/memory/m/memory.limit_in_bytes", "33554432\n",
			"sys/fs/cgroup/unified/u/cpu.max", "300000 100000\n",
		), CgroupLimits{MemoryBytes: 32 << 20, CPUs: 3, Memory: Cgroup{1, "/sys/fs/cgroup/memory/m"}, CPU: Cgroup{2, "/sys/fs/cgroup/unified/u"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := LimitsIn(tt.tree)
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestEffectiveMemory(t *testing.T) {
	for _, tt := range []struct{ most, high, want int64 }{{0, 0, 0}, {5, 0, 5}, {0, 5, 5}, {5, 4, 4}, {4, 5, 4}} {
		if got := (CgroupLimits{MemoryBytes: tt.most, MemoryHighBytes: tt.high}).EffectiveMemoryBytes(); got != tt.want {
			t.Errorf("max %d, high %d: %d, want %d", tt.most, tt.high, got, tt.want)
		}
	}
}

// A file that cannot be understood is named, and the others still count.
func TestLimitsNameTheFileThatIsWrong(t *testing.T) {
	tree := files(
		"proc/self/cgroup", "0::/g\n", "proc/self/mountinfo", mount2,
		"sys/fs/cgroup/g/memory.max", "plenty\n", "sys/fs/cgroup/g/cpu.max", "100000 100000\n",
		"sys/fs/cgroup/memory.max", "1048576\n",
	)
	got, err := LimitsIn(tree)
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != fault.Corrupted || f.Field != "/sys/fs/cgroup/g/memory.max" {
		t.Errorf("error %v", err)
	}
	if got.MemoryBytes != 1<<20 || got.CPUs != 1 {
		t.Errorf("the others were lost: %+v", got)
	}

	tree["sys/fs/cgroup/g/memory.max"].Data = []byte(strings.Repeat("9", valueBytesMax+1))
	if _, err := LimitsIn(tree); !errors.Is(err, fault.TooLarge) {
		t.Errorf("a file without end: %v", err)
	}

	if _, err := LimitsIn(forbidden{tree, "proc/self/mountinfo"}); !errors.Is(err, fs.ErrPermission) || fault.CodeOf(err) != fault.NotSupported {
		t.Errorf("a file that may not be read: %v", err)
	}
}

type forbidden struct {
	fs.FS
	name string
}

func (f forbidden) Open(name string) (fs.File, error) {
	if name == f.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return f.FS.Open(name)
}

func TestLimitsOfThisProcess(t *testing.T) {
	l, err := Limits()
	if err != nil {
		t.Fatal(err)
	}
	if l.MemoryBytes < 0 || l.CPUs < 0 {
		t.Errorf("%+v", l)
	}
	if runtime.GOOS != "linux" && l != (CgroupLimits{}) {
		t.Errorf("limits without control groups: %+v", l)
	}
	t.Logf("%+v", l)
}

// Whatever the kernel's files hold, limits are not negative and errors typed.
func FuzzLimits(f *testing.F) {
	f.Add("0::/a\n", mount2, "max\n", "max 100000\n")
	f.Add("4:memory,cpu:/x\n", mounts, "9223372036854771712", "-1")
	f.Add("1:cpu:/..\n0::/../../x", `1 1 0:0 /\057 /sys\040fs/\\ - cgroup2 c rw`, "18446744073709551615", "1 0")
	f.Fuzz(func(t *testing.T, own, mountinfo, memory, cpu string) {
		tree := files("proc/self/cgroup", own, "proc/self/mountinfo", mountinfo)
		for _, dir := range []string{"sys/fs/cgroup", "sys/fs/cgroup/a", "sys/fs/cgroup/memory/x", "sys/fs/cgroup/cpu,cpuacct/x"} {
			for _, name := range []string{"memory.max", "memory.high", "memory.limit_in_bytes", "memory.stat"} {
				tree[dir+"/"+name] = &fstest.MapFile{Data: []byte(memory)}
			}
			for _, name := range []string{"cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"} {
				tree[dir+"/"+name] = &fstest.MapFile{Data: []byte(cpu)}
			}
		}
		l, err := LimitsIn(tree)
		if l.MemoryBytes < 0 || l.MemoryHighBytes < 0 || l.CPUs < 0 || l.CPUs != l.CPUs {
			t.Errorf("%+v", l)
		}
		if err != nil && fault.CodeOf(err) == fault.Internal {
			t.Errorf("untyped: %v", err)
		}
	})
}
