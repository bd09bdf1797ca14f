//go:build unix

package command

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// fake puts a script where loadgen-peers is looked for.
func fake(t *testing.T, script string) (x peersRunner, out *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	if script != "" {
		if err := os.WriteFile(filepath.Join(dir, peersProgram), []byte("#!/bin/sh\n"+script), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	out = new(bytes.Buffer)
	return peersRunner{dir: dir, version: "v", in: strings.NewReader("input\n"), out: out, err: out}, out
}

func TestPeersGetTheArgumentsAndGiveTheStatus(t *testing.T) {
	x, out := fake(t, `read line; echo "$line $*"; exit 4`)
	err := x.run(t.Context(), []string{"compare", "--targets", "a,b"})
	if ExitStatus(err) != 4 || out.String() != "input compare --targets a,b\n" {
		t.Errorf("status %d (%v), output %q", ExitStatus(err), err, out)
	}
	x, _ = fake(t, "exit 0")
	if err := x.run(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// first calls f with the first thing that is written.
type first struct {
	io.Writer
	f    func()
	once sync.Once
}

func (w *first) Write(b []byte) (int, error) {
	w.once.Do(w.f)
	return w.Writer.Write(b)
}

func TestPeersEndWithTheProgram(t *testing.T) {
	x, out := fake(t, "trap 'echo stopped; exit 0' TERM; echo started; while :; do sleep 0.01; done")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	x.out = &first{Writer: out, f: cancel}
	x.err = x.out // one writer, as the buffer is one
	x.run(ctx, []string{"peer", "nats"})
	if out.String() != "started\nstopped\n" {
		t.Errorf("output %q: it was not asked to stop", out)
	}
}

func TestMissingPeersAreBuiltOrExplained(t *testing.T) {
	x, out := fake(t, "")
	t.Chdir(t.TempDir()) // no sources here
	t.Setenv("GOFLAGS", "-mod=mod")
	t.Setenv("GOPROXY", "off")
	err := x.run(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "sources") || !strings.Contains(out.String(), "building it: go build "+peersPackage) {
		t.Errorf("%v, output %q", err, out)
	}
}

func TestPeerCommandsAreForwarded(t *testing.T) {
	var names []string
	for _, c := range PeerCommands("v") {
		names = append(names, c.Name())
	}
	if strings.Join(names, " ") != "peer compare" {
		t.Errorf("commands %q", names)
	}
}
