package bench

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/portask/portask/ci/sample"
)

// cacheMax is how many bytes of linked programs stay in the cache; the oldest go
// first. A program has some 7 MB.
const cacheMax = 3 << 30

// tree is the copy of one side and the tools to build it.
type tree struct {
	root    string
	overlay string // empty until the toolchain is known
	env     []string
	used    map[string]bool // modules of the workspace
	timeout time.Duration
}

// tool runs the go command.
func (t *tree) tool(ctx context.Context, dir string, args ...string) ([]byte, error) {
	rel, err := filepath.Rel(t.root, dir)
	if err != nil {
		return nil, err
	}
	work := "GOWORK=off" // also hides a go.work above the copy
	if t.used[filepath.ToSlash(rel)] || (rel == "." && len(args) > 0 && args[0] == "work") {
		work = "GOWORK=" + filepath.Join(t.root, "go.work")
	}
	return output(ctx, t.timeout, 256<<20, dir, append(slices.Clone(t.env), work), "go", args...)
}

// release matches versions that GOTOOLCHAIN can name.
var release = regexp.MustCompile(`^go1\.[0-9]+(\.[0-9]+|rc[0-9]+)?$`)

// toolchain asks which Go a module is built with. Without a cache of its own
// that Go builds nothing, and says so once a package, in other words.
func (t *tree) toolchain(ctx context.Context, module string) (version, goroot string, err error) {
	out, err := t.tool(ctx, filepath.Join(t.root, filepath.FromSlash(module)), "env", "GOVERSION", "GOROOT", "GOCACHE", "GOMODCACHE")
	if err != nil {
		return "", "", err
	}
	values := strings.Split(string(out), "\n")
	if len(values) < 4 || values[1] == "" {
		return "", "", errors.New("go env names no GOROOT")
	}
	for i, name := range []string{"GOCACHE", "GOMODCACHE"} {
		if v := strings.TrimSpace(values[2+i]); v == "" || v == "off" {
			return "", "", fmt.Errorf("the go command has no %s: set HOME, or GOCACHE and GOMODCACHE; and --cache for linked programs, which go to the user's cache otherwise", name)
		}
	}
	return strings.TrimSpace(values[0]), strings.TrimSpace(values[1]), nil
}

// programKey names a test program; which of its layouts on which side is said
// beside it.
type programKey struct{ module, dir string }

// link builds the test program of a package with the link layout of a seed. It
// writes to file, which must not exist.
//
// Functions begin at multiples of 64 bytes, a line of the instruction cache. At
// the linker's own 32, where a tight loop lies in its lines is the layout's luck:
// a benchmark that counts words took 17.0 us with five of eight layouts and 21.2
// us with three; with 64 it takes 21.2 us with all. A linker that does not know
// the flag (before Go 1.25) goes without.
func (t *tree) link(ctx context.Context, key programKey, layout int, file string) error {
	flags := fmt.Sprintf("-s -w -randlayout=%d", layout)
	build := func(flags string) error {
		_, err := t.tool(ctx, filepath.Join(t.root, filepath.FromSlash(key.module)), "test", "-c", "-vet=off",
			"-trimpath", "-buildvcs=false", "-overlay="+t.overlay, "-ldflags="+flags, "-o", file, key.dir)
		return err
	}
	err := build(flags + " -funcalign=64")
	if err != nil && strings.Contains(err.Error(), "-funcalign") {
		err = build(flags)
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(file); err != nil {
		return fmt.Errorf("package %s has no test files", key.dir)
	}
	return nil
}

// firstLayout is the one whose bytes name a program in the cache: whatever goes
// into a program shows there, and it is needed anyway.
const firstLayout = 1

// program is a package's test program on one side.
type program struct {
	key         programKey
	tree        *tree
	fingerprint string
	mu          sync.Mutex
	layouts     map[int]string // file by layout, guarded by mu
}

func hashFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// newProgram links the first layout.
func (s *Session) newProgram(ctx context.Context, side sample.Side, key programKey) (*program, error) {
	file := s.newFile(firstLayout)
	p := &program{key: key, tree: s.tree(side, key), layouts: make(map[int]string)}
	if err := p.tree.link(ctx, key, firstLayout, file); err != nil {
		return nil, err
	}
	sum, err := hashFile(file)
	if err != nil {
		return nil, err
	}
	p.fingerprint = sum
	p.layouts[firstLayout] = file
	return p, nil
}

// file returns the program with a layout, from this session, from the cache, or
// linked now. Any number of goroutines may call it.
func (s *Session) file(ctx context.Context, p *program, layout int) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f, ok := p.layouts[layout]; ok {
		return f, nil
	}
	own := s.newFile(layout)
	cached := ""
	if s.cache != "" {
		cached = filepath.Join(s.cache, fmt.Sprintf("%s-%d", p.fingerprint[:32], layout))
		// A link of our own, so that a program in use cannot be pruned away.
		if linkOrCopy(cached, own) == nil {
			now := time.Now()
			_ = os.Chtimes(cached, now, now) // it was used; pruning goes by that
			p.layouts[layout] = own
			return own, nil
		}
	}
	if err := p.tree.link(ctx, p.key, layout, own); err != nil {
		return "", err
	}
	if cached != "" {
		_ = linkOrCopy(own, cached) // somebody else may have written it meanwhile
	}
	p.layouts[layout] = own
	return own, nil
}

// newFile is a name for a program of this session.
func (s *Session) newFile(layout int) string {
	return filepath.Join(s.dir, fmt.Sprintf("program-%d-%d", s.programs.Add(1), layout))
}

// linkOrCopy makes to another name of from, or a copy where it lies on another
// file system. It never replaces a file.
func linkOrCopy(from, to string) error {
	err := os.Link(from, to)
	if err == nil || os.IsExist(err) || os.IsNotExist(err) {
		return err
	}
	part := fmt.Sprintf("%s.%d", to, os.Getpid())
	defer os.Remove(part)
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := copyFile(from, part, info.Mode().Perm()); err != nil {
		return err
	}
	return os.Rename(part, to)
}

// prune removes the programs from dir that were used longest ago, until it
// holds at most limit bytes.
func prune(dir string, limit int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	var files []fs.FileInfo
	var sum int64
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			files = append(files, info)
			sum += info.Size()
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, f := range files {
		if sum <= limit {
			return
		}
		if os.Remove(filepath.Join(dir, f.Name())) == nil {
			sum -= f.Size()
		}
	}
}
