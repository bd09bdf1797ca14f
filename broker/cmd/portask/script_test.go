package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts run this test binary under the name portask: the real command in
// a process of its own.
// programs are what the tests may start by name; files of a system add theirs.
var programs = map[string]func(){"portask": main}

func TestMain(m *testing.M) {
	testscript.Main(m, programs)
}

// brokers are the running `portask serve` processes of one script, by name.
// Only the script's goroutine uses it.
type brokers map[string]*broker

type broker struct {
	cmd    *exec.Cmd
	rest   sync.WaitGroup // reads the rest of stdout
	stderr strings.Builder
}

func (b *broker) wait() error {
	b.rest.Wait()
	return b.cmd.Wait()
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			all := make(brokers)
			env.Values["brokers"] = all
			configs, err := filepath.Abs(filepath.Join("..", "..", "..", "configs"))
			if err != nil {
				return err
			}
			env.Setenv("CONFIGS", configs)
			env.Defer(func() {
				for _, b := range all {
					b.cmd.Process.Kill()
					b.wait()
				}
			})
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"serve":  cmdServe,
			"halt":   cmdHalt,
			"code":   cmdCode,
			"lines":  cmdLines,
			"orders": cmdOrders,
			"damage": cmdDamage,
			"stray":  cmdStray,
		},
	})
}

// serve NAME [FLAG...]: starts a broker on a free port and sets $ADDR once it
// serves.
func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: serve NAME [FLAG...]")
	}
	path, err := exec.LookPath("portask")
	ts.Check(err)
	b := &broker{cmd: exec.Command(path, append([]string{"serve", "--listen", "127.0.0.1:0"}, args[1:]...)...)}
	b.cmd.Dir = ts.MkAbs(".")
	b.cmd.Env = environ(ts)
	b.cmd.Stderr = &b.stderr
	out, err := b.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(b.cmd.Start())
	r := bufio.NewReader(out)
	line, err := r.ReadString('\n')
	addr, ok := strings.CutPrefix(line, "portask: serving on ")
	if err != nil || !ok {
		b.cmd.Process.Kill()
		b.cmd.Wait()
		ts.Fatalf("broker %s did not start: %q %v\n%s", args[0], line, err, b.stderr.String())
	}
	b.rest.Go(func() { r.WriteTo(&strings.Builder{}) })
	ts.Value("brokers").(brokers)[args[0]] = b
	ts.Setenv("ADDR", strings.TrimSpace(addr))
}

// environ is this process's environment with the settings that the script gave by
// `env`.
func environ(ts *testscript.TestScript) []string {
	env := os.Environ()
	names := []string{envConfig}
	for k := range newBrokerOptions().schema().Keys() {
		names = append(names, k.Env())
	}
	for _, name := range names {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// halt NAME [kill]: ends a broker with SIGTERM, expecting exit code 0, or with
// SIGKILL.
func cmdHalt(ts *testscript.TestScript, neg bool, args []string) {
	all := ts.Value("brokers").(brokers)
	if neg || len(args) < 1 || all[args[0]] == nil {
		ts.Fatalf("usage: halt NAME [kill], with a running broker")
	}
	b := all[args[0]]
	delete(all, args[0])
	if len(args) > 1 && args[1] == "kill" {
		ts.Check(b.cmd.Process.Kill())
		b.wait()
		return
	}
	ts.Check(b.cmd.Process.Signal(syscall.SIGTERM))
	if err := b.wait(); err != nil {
		ts.Fatalf("broker %s after SIGTERM: %v\n%s", args[0], err, b.stderr.String())
	}
	if strings.Contains(b.stderr.String(), "panic") {
		ts.Fatalf("broker %s:\n%s", args[0], b.stderr.String())
	}
}

// code N ARG...: runs portask and expects exit code N (N|M is either). No failure
// may print a stack trace.
func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: code N ARG...")
	}
	path, err := exec.LookPath("portask")
	ts.Check(err)
	cmd := exec.Command(path, args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = environ(ts)
	var stderr strings.Builder
	cmd.Stdout = ts.Stdout()
	cmd.Stderr = &stderr
	err = cmd.Run()
	ts.Stderr().Write([]byte(stderr.String()))
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if !slices.Contains(strings.Split(args[0], "|"), strconv.Itoa(got)) {
		ts.Fatalf("exit code %d, want %s\n%s", got, args[0], stderr.String())
	}
	if strings.Contains(stderr.String(), "goroutine ") {
		ts.Fatalf("a stack trace:\n%s", stderr.String())
	}
}

// lines FILE N: the file has N lines.
func cmdLines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: lines FILE N")
	}
	b, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	if got := strings.Count(string(b), "\n"); got != want {
		ts.Fatalf("%s: %d lines, want %d", args[0], got, want)
	}
}

// orders FILE N: writes N lines of JSON that are alike, and no two the same.
func cmdOrders(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: orders FILE N")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, `{"order":%d,"customer":{"id":%d,"country":"NL"},"status":"delivered","lines":[{"article":%d,"quantity":%d}]}`+"\n", i, i*7919%1000, i*31%97, i%5)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b.Bytes(), 0o644))
}

// stray DIR NAME: makes an empty file, or with a slash behind it a directory,
// beside the segments of each log that has any.
func cmdStray(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: stray DIR NAME")
	}
	files, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "logs", "*", "00000000000000000000.seg"))
	ts.Check(err)
	if len(files) == 0 {
		ts.Fatalf("%s has no segments", args[0])
	}
	for _, file := range files {
		name, dir := strings.CutSuffix(args[1], "/")
		name = filepath.Join(filepath.Dir(file), name)
		if dir {
			ts.Check(os.MkdirAll(filepath.Join(name, "inside"), 0o755))
		} else {
			ts.Check(os.WriteFile(name, nil, 0o644))
		}
	}
}

// damage DIR TEXT: flips one bit of the first occurrence of the text in a
// segment.
func cmdDamage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: damage DIR TEXT")
	}
	files, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "logs", "*", "*.seg"))
	ts.Check(err)
	for _, name := range append(files, filepath.Join(ts.MkAbs(args[0]), "meta", "topics")) {
		b, err := os.ReadFile(name)
		ts.Check(err)
		if i := bytes.Index(b, []byte(args[1])); i >= 0 {
			b[i] ^= 1
			ts.Check(os.WriteFile(name, b, 0o644))
			return
		}
	}
	ts.Fatalf("%q is in no segment of %s", args[1], args[0])
}
