package explain

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// compiler compares what the compiler says of the benchmark's package and of
// those packages of the module that it imports: what escapes, what it inlines.
// Lines move, so sentences are compared without them, with their counts.
func (r *runner) compiler(ctx context.Context, x *Explanation) error {
	for _, s := range r.sides {
		var err error
		if s.diagnostics, err = diagnose(ctx, filepath.Join(s.root, filepath.FromSlash(r.o.Bench.Module)), r.o.Bench.Package); err != nil {
			return err
		}
	}
	base, head := r.sides[0].diagnostics, r.sides[1].diagnostics
	var notes []string
	for what, n := range head {
		if n > base[what] && !strings.Contains(what, "can inline") {
			notes = append(notes, "new: "+what)
		}
	}
	for what, n := range base {
		if n > head[what] && strings.Contains(what, "can inline") {
			notes = append(notes, "no longer: "+what)
		}
	}
	slices.Sort(notes)
	x.Notes = append(x.Notes, notes...)
	return nil
}

// position is what stands in front of a diagnostic; the file is kept.
var position = regexp.MustCompile(`^(?:\./)?([^:]+\.go):\d+:\d+: (.*)$`)

// diagnose builds the package's tests with -m, for packages of its module. The
// build cache replays what it printed.
func diagnose(ctx context.Context, dir, pkg string) (map[string]int, error) {
	list := exec.CommandContext(ctx, "go", "list", "-f", "{{.Module.Path}}", pkg)
	list.Dir = dir
	module, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", pkg, err)
	}
	pattern := strings.TrimSpace(string(module)) + "/..."
	cmd := exec.CommandContext(ctx, "go", "build", "-o", os.DevNull, "-gcflags="+pattern+"=-m", pkg)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go build -gcflags=-m: %w: %s", err, lastLine(out))
	}
	return diagnostics(out), nil
}

// diagnostics counts sentences that matter, by file.
func diagnostics(out []byte) map[string]int {
	found := map[string]int{}
	for line := range bytes.Lines(out) {
		m := position.FindSubmatch(bytes.TrimSpace(line))
		if m == nil {
			continue
		}
		what := string(m[2])
		if strings.Contains(what, "escapes to heap") && !strings.HasSuffix(what, "does not escape") || strings.HasPrefix(what, "moved to heap") || strings.HasPrefix(what, "can inline") {
			found[string(m[1])+": "+what]++
		}
	}
	return found
}
