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

// wordsMax bounds what an error quotes of what a program said.
const wordsMax = 2 << 10

// words is what the program said before it ended: from its last panic, fatal
// error or failed benchmark on, whose stacks may be long, at most wordsMax
// bytes; else the last wordsMax bytes.
func (t *tail) words() string {
	text := "\n" + strings.ToValidUTF8(string(t.b), "?")
	at := -1
	for _, mark := range []string{"\npanic: ", "\nfatal error: ", "\n--- FAIL: "} {
		at = max(at, strings.LastIndex(text, mark))
	}
	if at < 0 {
		text = strings.TrimSpace(text)
		return strings.ToValidUTF8(text[max(0, len(text)-wordsMax):], "")
	}
	text = strings.TrimSpace(text[at:])
	return strings.ToValidUTF8(text[:min(len(text), wordsMax)], "")
}

// failure is what a benchmark that failed said, at most wordsMax bytes.
func (t *tail) failure(name string) string {
	_, text, ok := strings.Cut("\n"+strings.ToValidUTF8(string(t.b), "?"), "\n--- FAIL: "+name+"\n")
	if !ok {
		return "it failed, and what it said is lost"
	}
	end := 0
	for line := range strings.Lines(text) {
		if line[0] != ' ' && line[0] != '\t' {
			break
		}
		end += len(line)
	}
	text = strings.TrimSpace(text[:min(end, wordsMax)])
	return "it failed: " + strings.ToValidUTF8(text, "")
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
