package trial

import "testing"

func TestCounts(t *testing.T) {
	if n, err := parsePerf("# started\n\n1234,,raw_syscalls:sys_enter,5,100.00,,\n"); n != 1234 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := parseStrace("% time seconds usecs/call calls errors syscall\n 99.0 0.1 1 40 2 read\n100.00 0.1 2 3456 7 total\n"); n != 3456 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for _, s := range []string{"", "x\n", "<not counted>,,raw_syscalls:sys_enter,\n"} {
		if n, err := parsePerf(s); err == nil {
			t.Errorf("perf %q: %d", s, n)
		}
		if n, err := parseStrace(s); err == nil {
			t.Errorf("strace %q: %d", s, n)
		}
	}
	if got, want := exactly("A/b=1.5/c+d"), `^BenchmarkA$/^b=1\.5$/^c\+d$`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
