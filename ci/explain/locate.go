package explain

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/portask/portask/ci/sample"
)

// Locate takes apart a benchmark's name as verdicts print it,
// "broker/wire.Encode/frame=produce", in the repository at root: the module is
// the nearest directory with a go.mod.
func Locate(root, name string) (sample.Bench, error) {
	var b sample.Bench
	dir, rest := "", name
	for {
		part, after, more := strings.Cut(rest, "/")
		if part == "." && more {
			rest = after
			continue
		}
		// Of the first part with a point: the directory, and the benchmark.
		if at := strings.LastIndex(part, "."); at >= 0 {
			dir = path.Join(dir, strings.TrimSuffix(part[:at], "."))
			b.Name = part[at+1:]
			if more {
				b.Name += "/" + after
			}
			break
		}
		if !more {
			return b, fmt.Errorf("benchmark %q: want DIRECTORY.NAME, such as broker/wire.Encode", name)
		}
		dir, rest = path.Join(dir, part), after
	}
	if b.Name == "" || b.Name[0] == '/' || strings.HasPrefix(dir, "..") || path.IsAbs(dir) {
		return b, fmt.Errorf("benchmark %q: want DIRECTORY.NAME, such as broker/wire.Encode", name)
	}
	dir = path.Clean(dir)
	for module := dir; ; module = path.Dir(module) {
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(module), "go.mod")); err == nil {
			b.Module = module
			b.Package = "."
			if module != dir {
				b.Package = "./" + strings.TrimPrefix(strings.TrimPrefix(dir, module), "/")
			}
			if module == "." && dir != "." {
				b.Package = "./" + dir
			}
			return b, nil
		}
		if module == "." {
			return b, fmt.Errorf("benchmark %q: no module has the directory %s", name, dir)
		}
	}
}
