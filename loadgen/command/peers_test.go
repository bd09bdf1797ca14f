//go:build unix

package command

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

func TestPeersEndWithTheProgram(t *testing.T) {
	started := filepath.Join(t.TempDir(), "started")
	x, out := fake(t, "trap 'echo stopped; exit 0' TERM; echo >"+started+"; while :; do sleep 0.01; done")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() {
		defer cancel()
		for ctx.Err() == nil {
			if _, err := os.Stat(started); err == nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	x.run(ctx, []string{"peer", "nats"})
	if out.String() != "stopped\n" {
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
