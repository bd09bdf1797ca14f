package bench

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of what a repository may hold.
const (
	modulesMax    = 1000
	benchmarksMax = 20_000
)

// packageSource is a package with benchmarks on one side.
type packageSource struct {
	module, dir string // as in Entry; dir begins with "./" or is "."
	// functions are the benchmark functions, sorted, and a hash of the source of
	// each, comments and layout left out.
	functions map[string]string
	// files is a hash of the Go files of the directory and of go.mod.
	files string
}

// modules returns the directories of a tree's modules, "." for the tree itself,
// and which of them its workspace uses.
func modules(ctx context.Context, t *tree) ([]string, map[string]bool, error) {
	used := make(map[string]bool)
	if _, err := os.Stat(filepath.Join(t.root, "go.work")); err == nil {
		out, err := t.tool(ctx, t.root, "work", "edit", "-json")
		if err != nil {
			return nil, nil, err
		}
		var work struct{ Use []struct{ DiskPath string } }
		if err := json.Unmarshal(out, &work); err != nil {
			return nil, nil, fmt.Errorf("go.work: %w", err)
		}
		for _, u := range work.Use {
			used[path.Clean(filepath.ToSlash(u.DiskPath))] = true
		}
	}
	var dirs []string
	err := filepath.WalkDir(t.root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if b := d.Name(); name != t.root && (b == "testdata" || b == "vendor" || strings.HasPrefix(b, ".") || strings.HasPrefix(b, "_")) {
				return filepath.SkipDir
			}
			return nil
		}
		if d.Name() != "go.mod" {
			return nil
		}
		rel, err := filepath.Rel(t.root, filepath.Dir(name))
		if err != nil {
			return err
		}
		if dirs = append(dirs, filepath.ToSlash(rel)); len(dirs) > modulesMax {
			return fmt.Errorf("more than %d modules", modulesMax)
		}
		return nil
	})
	slices.Sort(dirs)
	return dirs, used, err
}

// packagesOf finds the packages of a module that have benchmarks. What cannot
// be parsed has none here; the build says why.
func packagesOf(ctx context.Context, t *tree, module string) ([]packageSource, error) {
	root := filepath.Join(t.root, filepath.FromSlash(module))
	out, err := t.tool(ctx, root, "list", "-e", "-json=Dir,GoFiles,TestGoFiles,XTestGoFiles", "./...")
	if err != nil {
		return nil, err
	}
	root, err = filepath.EvalSymlinks(root)
	if err != nil {
		return nil, err
	}
	var found []packageSource
	dec := json.NewDecoder(bytes.NewReader(out))
	for total := 0; ; {
		var p struct {
			Dir                                string
			GoFiles, TestGoFiles, XTestGoFiles []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return found, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		src := packageSource{module: module, functions: make(map[string]string)}
		for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			if err := benchmarkFunctions(filepath.Join(p.Dir, name), src.functions); err != nil {
				continue
			}
		}
		if len(src.functions) == 0 {
			continue
		}
		if total += len(src.functions); total > benchmarksMax {
			return nil, fmt.Errorf("module %s: more than %d benchmark functions", module, benchmarksMax)
		}
		dir, err := filepath.EvalSymlinks(p.Dir)
		if err != nil {
			return nil, err
		}
		rel, err := filepath.Rel(root, dir)
		if err != nil {
			return nil, err
		}
		if src.dir = "."; rel != "." {
			src.dir = "./" + filepath.ToSlash(rel)
		}
		src.files, err = hashFiles(append([]string{filepath.Join(root, "go.mod")}, under(p.Dir, slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles))...))
		if err != nil {
			return nil, err
		}
		found = append(found, src)
	}
}

func under(dir string, names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = filepath.Join(dir, n)
	}
	slices.Sort(out)
	return out
}

// hashFiles is a hash over names and contents, in the order given.
func hashFiles(names []string) (string, error) {
	h := sha256.New()
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n", filepath.Base(name), len(b))
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// benchmarkFunctions adds the functions of a file that package testing would
// run as benchmarks, with a hash of each one's source.
func benchmarkFunctions(name string, into map[string]string) error {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	for _, decl := range file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || fn.Recv != nil || fn.Type.Params == nil || len(fn.Type.Params.List) != 1 || fn.Type.Results != nil {
			continue
		}
		rest, ok := strings.CutPrefix(fn.Name.Name, "Benchmark")
		if !ok {
			continue
		}
		if r, _ := utf8.DecodeRuneInString(rest); rest != "" && unicode.IsLower(r) {
			continue
		}
		if star, ok := fn.Type.Params.List[0].Type.(*ast.StarExpr); !ok {
			continue
		} else if sel, ok := star.X.(*ast.SelectorExpr); !ok || sel.Sel.Name != "B" {
			continue
		}
		fn.Doc = nil
		var text bytes.Buffer
		if err := printer.Fprint(&text, token.NewFileSet(), fn); err != nil {
			return err
		}
		sum := sha256.Sum256(text.Bytes())
		into[fn.Name.Name] = hex.EncodeToString(sum[:])
	}
	return nil
}
