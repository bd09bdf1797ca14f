package explain

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/portask/portask/ci/sample"
)

// callgrindNs is how long a run under callgrind takes natively; it is some 30
// times slower there.
const callgrindNs = 3e7

// instructions counts each function's instructions on both sides. Of runs with
// n and with 2n iterations the difference is taken, which leaves out the
// program's start.
//
// Asynchronous preemption is off, whose signals callgrind does not survive, and
// so are collections, which come by heap size and not by work.
func (r *runner) instructions(ctx context.Context, x *Explanation) error {
	valgrind, err := exec.LookPath("valgrind")
	if err != nil {
		return errors.New("valgrind is not installed")
	}
	r.o.Progress(fmt.Sprintf("explain %s: instructions of each function, by callgrind", r.o.Bench))
	n := max(1, int(float64(r.n)*callgrindNs/1e9))
	var counts [2]map[string]int64
	var total [2]int64
	for i, s := range r.sides {
		var at [2]map[string]int64
		for k, n := range []int{n, 2 * n} {
			file := filepath.Join(r.tmp, "callgrind.out")
			cmd := exec.CommandContext(ctx, valgrind, append([]string{"--tool=callgrind", "--compress-strings=no", "--compress-pos=no",
				"--callgrind-out-file=" + file, s.program}, r.args(n)...)...)
			cmd.Dir = s.dir
			cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1", "GOGC=off", "GOMAXPROCS=1")
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("callgrind of %s: %w: %s", sample.Side(i), err, lastLine(out))
			}
			f, err := os.Open(file)
			if err != nil {
				return err
			}
			at[k], err = parseCallgrind(f)
			f.Close()
			if err != nil {
				return err
			}
		}
		counts[i] = map[string]int64{}
		for name, c := range at[1] {
			if d := c - at[0][name]; d > 0 {
				counts[i][name] = d
				total[i] += d
			}
		}
	}
	if total[0] == 0 {
		return errors.New("callgrind counted nothing")
	}
	unit := 1 / float64(n)
	x.Top = append(x.Top, moved("instructions", counts[0], counts[1], total[0], unit, unit, 0, exactMin, functionsMax)...)
	x.note("instructions: %.0f -> %.0f an operation (%+.2f %%)", float64(total[0])*unit, float64(total[1])*unit, 100*(float64(total[1])/float64(total[0])-1))
	return nil
}

// callgrindLineMax bounds a line of callgrind's output: names of instantiated
// functions are long.
const callgrindLineMax = 1 << 20

// parseCallgrind adds up the self cost of each function in callgrind's format
// (https://valgrind.org/docs/manual/cl-format.html), written without
// compression of strings and positions: "fn=NAME", then lines "POSITION COST",
// of which the one after "calls=" is the called function's.
func parseCallgrind(r io.Reader) (map[string]int64, error) {
	out := map[string]int64{}
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), callgrindLineMax)
	fn, call := "", false
	for n := 1; s.Scan(); n++ {
		line := s.Text()
		switch {
		case strings.HasPrefix(line, "fn="):
			fn = line[3:]
		case strings.HasPrefix(line, "calls="):
			call = true
		case fn == "" || line == "" || (line[0] < '0' || line[0] > '9') && line[0] != '+' && line[0] != '-' && line[0] != '*':
			// header, file or object of what follows, or the totals
		case call:
			call = false
		default:
			_, cost, ok := strings.Cut(line, " ")
			if !ok {
				continue // a position without cost
			}
			cost, _, _ = strings.Cut(cost, " ")
			v, err := strconv.ParseInt(cost, 10, 64)
			if err != nil || v < 0 {
				return nil, fmt.Errorf("callgrind, line %d: cost %.40q", n, cost)
			}
			out[fn] += v
		}
	}
	return out, s.Err()
}
