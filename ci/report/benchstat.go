package report

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/perf/benchfmt"
)

// benchstatModule has the stock tool; the version is the one this program was
// built with.
const benchstatModule = "golang.org/x/perf"

// comparedKeys are those keys of a raw file in which samples of one table must agree;
// the role makes the columns, and all others (round, layout, load, what
// disturbed it) are what samples differ in.
var comparedKeys = map[string]bool{"goos": true, "goarch": true, "cpu": true, "pkg": true, "role": true}

// columns are how the stock tool is asked to read a raw file: base beside head,
// rounds as samples.
func columns(raw string) ([]string, error) {
	f, err := os.Open(raw)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	keys := map[string]bool{}
	reader := benchfmt.NewReader(f, filepath.Base(raw))
	for reader.Scan() {
		if rec, ok := reader.Result().(*benchfmt.Result); ok {
			for _, c := range rec.Config {
				if c.File && !comparedKeys[c.Key] {
					keys[c.Key] = true
				}
			}
		}
	}
	args := []string{"-col", "role@(base head)"}
	if len(keys) > 0 {
		args = append(args, "-ignore", strings.Join(slices.Sorted(maps.Keys(keys)), ","))
	}
	return append(args, raw), reader.Err()
}

// Benchstat returns what the stock benchstat prints of a raw file, or one line
// that says why there is nothing. It takes the program on the path, else that
// of the module in the directory ci, else lets the go command fetch the version
// this program was built with.
func Benchstat(ctx context.Context, raw string) string {
	raw, err := filepath.Abs(raw)
	if err != nil {
		return fmt.Sprintf("benchstat: %v\n", err)
	}
	args, err := columns(raw)
	if err != nil {
		return fmt.Sprintf("benchstat: %v\n", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute) // the first use builds it
	defer cancel()
	var command []string
	dir := ""
	if path, err := exec.LookPath("benchstat"); err == nil {
		command = []string{path}
	} else if _, err := os.Stat("ci/go.mod"); err == nil {
		command, dir = []string{"go", "tool", "benchstat"}, "ci"
	} else {
		command = []string{"go", "run", benchstatModule + "/cmd/benchstat@" + perfVersion()}
	}
	cmd := exec.CommandContext(ctx, command[0], append(command[1:], args...)...)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Sprintf("benchstat could not run: %v: %.400s\n", err, bytes.TrimSpace(stderr.Bytes()))
	}
	// It names the file in each column; its base name says as much.
	return string(bytes.ReplaceAll(stdout.Bytes(), []byte(raw), []byte(filepath.Base(raw))))
}

// perfVersion is the version of the module this program was built with.
func perfVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == benchstatModule {
				return m.Version
			}
		}
	}
	return "latest"
}
