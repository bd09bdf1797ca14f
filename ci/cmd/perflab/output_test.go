//go:build unix

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asCommand makes this test program perflab itself.
const asCommand = "PERFLAB_TEST_IS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// perflab is a command that compares two commits of a small module, with a
// temporary directory of its own.
func perflab(t *testing.T, args ...string) (cmd *exec.Cmd, temp string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	dir := t.TempDir()
	for step, text := range []string{"n", "n + 1"} {
		for name, content := range map[string]string{
			"go.mod":    "module example.com/ends\n\ngo 1.22\n",
			"a_test.go": "package ends\n\nimport \"testing\"\n\nvar sum int\n\nfunc BenchmarkAdd(b *testing.B) {\n\tfor n := 0; n < b.N; n++ {\n\t\tsum += " + text + "\n\t}\n}\n",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		for i, args := range [][]string{{"init", "-q"}, {"add", "-A"}, {"commit", "-q", "-m", "change"}} {
			if i == 0 && step > 0 {
				continue
			}
			git := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"}, args...)...)
			if out, err := git.CombinedOutput(); err != nil {
				t.Fatalf("git %v: %v\n%s", args, err, out)
			}
		}
	}
	temp = t.TempDir()
	cmd = exec.CommandContext(t.Context(), os.Args[0], append(args, "--repo", dir, "--base", "HEAD~1", "--head", "HEAD", "--controls=false", "--layouts", "1", "--cache", t.TempDir())...)
	cmd.Env = append(os.Environ(), asCommand+"=1", "TMPDIR="+temp, "GOTMPDIR=")
	return cmd, temp
}

// endedWell checks that a command ended with status 1, by itself, and left
// nothing behind.
func endedWell(t *testing.T, cmd *exec.Cmd, temp string) {
	t.Helper()
	if s := cmd.ProcessState; !s.Exited() || s.ExitCode() != 1 {
		t.Errorf("ended with %v, want exit status 1", s)
	}
	left, err := filepath.Glob(filepath.Join(temp, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// Who stops perflab while the go command is building finds no directories of
// either afterwards.
func TestInterruptLeavesNothing(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		cmd, temp := perflab(t, "run", "--rounds", "1000")
		// A compiler that says it has been called and does not end by itself.
		tools := t.TempDir()
		called := filepath.Join(tools, "called")
		script := "#!/bin/sh\ncase \"$*\" in *-V=full*) exec \"$@\" ;; esac\n: >'" + called + "'\nexec sleep 100000\n"
		if err := os.WriteFile(filepath.Join(tools, "compile"), []byte(script), 0o777); err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(cmd.Env, "GOFLAGS=-toolexec="+filepath.Join(tools, "compile"))
		var said bytes.Buffer
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = cmd.Wait() // endedWell looks at how
		}()
		for wait := true; wait; {
			select {
			case <-ended:
				t.Fatalf("%v before anything was compiled: %s", cmd.ProcessState, &said)
			case <-time.After(10 * time.Millisecond):
				_, err := os.Stat(called)
				wait = err != nil
			}
		}
		if left, err := filepath.Glob(filepath.Join(temp, "*", "go-build*")); err != nil || len(left) == 0 {
			t.Errorf("the go command works elsewhere than in the temporary directory: %q, %v", left, err)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Error(err)
		}
		<-ended
		if !strings.Contains(said.String(), "signal received") {
			t.Errorf("%v: said %q", sig, &said)
		}
		endedWell(t, cmd, temp)
	}
}

// A reader that goes away ends perflab by its ordinary way out.
func TestUnreadOutputLeavesNothing(t *testing.T) {
	for _, which := range []string{"output", "error"} {
		cmd, temp := perflab(t, "run", "--rounds", "0")
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		if which == "output" {
			cmd.Stdout = w
		} else {
			cmd.Stderr = w
		}
		_ = cmd.Run() // endedWell looks at how
		w.Close()
		endedWell(t, cmd, temp)
	}
}
