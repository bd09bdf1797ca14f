package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// outputMax bounds what is kept of a child's output; the rest is read and lost.
const outputMax = 64 << 10

// tail keeps the last outputMax bytes.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if len(p) > outputMax {
		p = p[len(p)-outputMax:]
	}
	if over := len(t.b) + len(p) - outputMax; over > 0 {
		t.b = t.b[:copy(t.b, t.b[over:])]
	}
	t.b = append(t.b, p...)
	return n, nil
}

// last returns the last n lines that are not blank.
func (t *tail) last(n int) string {
	var lines []string
	for line := range strings.Lines(string(t.b)) {
		if line = strings.TrimRight(line, " \r\n"); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// child prepares a command in a process group of its own, which is killed as a
// whole when ctx ends, and whose output is never waited for much longer.
func child(ctx context.Context, dir string, env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = env
	ownGroup(cmd)
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

// output runs a command to its end and returns its standard output, which may
// have at most limit bytes. An error holds the last lines of standard error.
func output(ctx context.Context, timeout time.Duration, limit int64, dir string, env []string, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := child(ctx, dir, env, name, args...)
	var out bytes.Buffer
	var bad tail
	cmd.Stdout = &limited{&out, limit}
	cmd.Stderr = &bad
	err := cmd.Run()
	if err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("not done after %v", timeout)
		}
		what := strings.Join(append([]string{name}, args[:min(len(args), 2)]...), " ")
		return nil, fmt.Errorf("%s: %w\n%s", what, err, bad.last(12))
	}
	return out.Bytes(), nil
}

// limited refuses to take more than left bytes.
type limited struct {
	w    io.Writer
	left int64
}

func (l *limited) Write(p []byte) (int, error) {
	if int64(len(p)) > l.left {
		return 0, errors.New("more output than expected")
	}
	l.left -= int64(len(p))
	return l.w.Write(p)
}

// cleanEnvironment is this process's without the variables that would steer Go
// programs or git behind the plan's back, then the given ones.
func cleanEnvironment(set ...string) []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case name == "GODEBUG", name == "GOGC", name == "GOMEMLIMIT", name == "GOMAXPROCS", name == "GOTRACEBACK",
			name == "GOWORK", name == "PWD", name == "PERFLAB_WORKER", name == "GOCOVERDIR",
			// Set where git itself started us, as in a hook; the rest of GIT_* is
			// configuration and stays.
			name == "GIT_DIR", name == "GIT_WORK_TREE", name == "GIT_INDEX_FILE", name == "GIT_PREFIX", name == "GIT_COMMON_DIR",
			name == "GIT_OBJECT_DIRECTORY", name == "GIT_ALTERNATE_OBJECT_DIRECTORIES", name == "GIT_NAMESPACE":
		default:
			env = append(env, v)
		}
	}
	return append(env, set...)
}
