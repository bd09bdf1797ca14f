package bench

import (
	"os"
	"strconv"
	"strings"
)

// runDelay is how many nanoseconds the threads that a process has now were
// ready to run and had no processor, since each began; 0 where the kernel does
// not tell.
func runDelay(pid int) int64 {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	d, err := os.Open(dir)
	if err != nil {
		return 0
	}
	names, err := d.Readdirnames(1024)
	d.Close()
	if err != nil {
		return 0
	}
	var sum int64
	for _, name := range names {
		b, err := os.ReadFile(dir + "/" + name + "/schedstat")
		if err != nil {
			continue // the thread has ended
		}
		if f := strings.Fields(string(b)); len(f) >= 2 {
			ns, err := strconv.ParseInt(f[1], 10, 64)
			if err == nil {
				sum += ns
			}
		}
	}
	return sum
}
