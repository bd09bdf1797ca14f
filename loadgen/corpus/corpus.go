// Package corpus provides the bytes that payloads are cut from: test data that
// ships inside Go modules the project uses, the files of a directory, or
// generated data of a known kind.
package corpus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

// File is one piece of a corpus.
type File struct {
	Name  string // path or kind
	Class string // json, html, text, binary, ...; the file name's extension for a directory's files
	Bytes []byte
}

const (
	// fileBytesMax is read of one file of a module: it keeps the classes of
	// FromModules at similar weight.
	fileBytesMax = 192 << 10
	// dirBytesMax bounds what FromDir holds in memory.
	dirBytesMax = 256 << 20
)

// moduleFiles are the test data of modules that loadgen links, by class. All
// four classes have at least two files so that none is one file's peculiarity.
var moduleFiles = []struct{ class, module, path string }{
	{"json", "github.com/klauspost/compress", "gzip/testdata/test.json"},
	{"json", "github.com/klauspost/compress", "gzhttp/testdata/benchmark.json"},
	{"html", "github.com/klauspost/compress", "testdata/html.txt"},
	{"text", "github.com/klauspost/compress", "testdata/Mark.Twain-Tom.Sawyer.txt"},
	{"text", "github.com/andybalholm/brotli", "testdata/Isaac.Newton-Opticks.txt"},
	{"binary", "github.com/klauspost/compress", "zstd/testdata/z000028"},
	{"binary", "github.com/klauspost/compress", "flate/testdata/tokens.bin"},
	{"binary", "github.com/klauspost/compress", "s2/testdata/random"},
}

// FromModules reads test data of Go modules, found with the go command in the
// module cache, in the versions this program was built with. A file that is
// missing is replaced by generated data of its class; the names say so.
func FromModules(ctx context.Context) []File {
	var out []File
	dirs := map[string]string{}
	for _, f := range moduleFiles {
		dir, ok := dirs[f.module]
		if !ok {
			dir, _ = moduleDir(ctx, f.module) // without it the data is generated
			dirs[f.module] = dir
		}
		var b []byte
		if dir != "" {
			b, _ = readMost(filepath.Join(dir, filepath.FromSlash(f.path)), fileBytesMax)
		}
		if len(b) == 0 {
			g, err := Generate(f.class, fileBytesMax, uint64(len(out)))
			if err != nil {
				continue
			}
			out = append(out, g)
			continue
		}
		out = append(out, File{Name: f.module[strings.LastIndexByte(f.module, '/')+1:] + "/" + f.path, Class: f.class, Bytes: b})
	}
	return out
}

// moduleDir asks the go command where a module's source is.
func moduleDir(ctx context.Context, module string) (string, error) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", errors.New("the program was built without module information")
	}
	i := slices.IndexFunc(info.Deps, func(d *debug.Module) bool { return d.Path == module })
	if i < 0 {
		return "", fmt.Errorf("module %s is not linked", module)
	}
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module+"@"+info.Deps[i].Version)
	cmd.Dir = os.TempDir() // outside any module, whose go.mod must not matter
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	b, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go mod download %s: %w", module, err)
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(b, &m); err != nil {
		return "", fmt.Errorf("go mod download %s: %w", module, err)
	}
	return m.Dir, nil
}

// readMost refuses what is no file: a pipe without a writer could be waited for
// without end, and no signal would help.
func readMost(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: is no regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// FromDir reads the regular files below dir, at most 256 MiB of them in the
// order of their paths. Hidden files and directories are left out.
func FromDir(dir string) ([]File, error) {
	var out []File
	left := int64(dirBytesMax)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name != dir && strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		if left <= 0 {
			return filepath.SkipAll
		}
		b, err := readMost(name, left)
		if err != nil {
			return err
		}
		left -= int64(len(b))
		if len(b) > 0 {
			class := strings.TrimPrefix(filepath.Ext(name), ".")
			if class == "" {
				class = "file"
			}
			rel, err := filepath.Rel(dir, name)
			if err != nil {
				return err
			}
			out = append(out, File{Name: rel, Class: strings.ToLower(class), Bytes: b})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no file with content", dir)
	}
	return out, nil
}

// Pool is the bytes alone, as payload.New takes them.
func Pool(files []File) [][]byte {
	out := make([][]byte, len(files))
	for i, f := range files {
		out[i] = f.Bytes
	}
	return out
}

// Describe is the classes with their numbers of files and bytes, on one line.
func Describe(files []File) string {
	type sum struct{ files, bytes int }
	sums := map[string]sum{}
	var order []string
	generated := 0
	for _, f := range files {
		s, ok := sums[f.Class]
		if !ok {
			order = append(order, f.Class)
		}
		sums[f.Class] = sum{s.files + 1, s.bytes + len(f.Bytes)}
		if strings.HasPrefix(f.Name, generatedPrefix) {
			generated++
		}
	}
	const most = 8
	var parts []string
	for _, c := range order[:min(len(order), most)] {
		parts = append(parts, fmt.Sprintf("%s %d KiB", c, (sums[c].bytes+1023)>>10))
	}
	if n := len(order) - most; n > 0 {
		parts = append(parts, fmt.Sprintf("%d more kinds", n))
	}
	s := strings.Join(parts, ", ")
	if generated > 0 {
		s += fmt.Sprintf(" (%d of %d files generated)", generated, len(files))
	}
	return s
}
