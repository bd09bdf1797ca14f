package lab

import "testing"

func TestParseCalls(t *testing.T) {
	calls, err := parseCalls(`strace: Process 4711 attached with 9 threads
strace: Process 4711 detached
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 53.01    0.001234           1      1234         2 read
 40.00    0.000900           2       400           fdatasync
------ ----------- ----------- --------- --------- ----------------
100.00    0.002134           1      1634         2 total
`)
	if err != nil || len(calls) != 2 || calls["read"] != 1234 || calls["fdatasync"] != 400 {
		t.Errorf("%v, %v", calls, err)
	}
	for _, text := range []string{"", "strace: attach: ptrace(PTRACE_SEIZE, 1): Operation not permitted", "% time seconds usecs/call calls errors syscall\n1 2 3 many read\n"} {
		if calls, err := parseCalls(text); err == nil {
			t.Errorf("%q: %v", text, calls)
		}
	}
}

func FuzzParseCalls(f *testing.F) {
	f.Add("% time     seconds  usecs/call     calls    errors syscall\n 53.01    0.001234           1      1234         2 read\n")
	f.Fuzz(func(t *testing.T, s string) {
		if calls, err := parseCalls(s); err == nil && len(calls) == 0 {
			t.Error("no calls and no error")
		}
	})
}
