// Package arch reads the source tree so that its tests can hold the promises
// that the compiler does not: who may import whom, how long a file may grow,
// and that nothing in the repository depends on the machine it was written on.
//
// It parses import clauses of every Go file, whatever its build constraints,
// so the picture is the same on every operating system. It runs no command
// except `git ls-files`, and only where there is a repository.
package arch

import (
	"bytes"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Prefix of the import paths of all modules of this repository.
const Prefix = "github.com/portask/portask/"

// Package is one directory of Go files.
type Package struct {
	// Path is the import path without Prefix: "broker/storage/disklog".
	Path string
	// Imports are those of the files that are compiled into the package;
	// TestImports those that only its tests have. Both hold packages of this
	// repository (Prefix stripped) and others (whole), sorted, without
	// repetition.
	Imports, TestImports []string
}

// Root walks up from the working directory to the directory of go.work.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.work in the working directory or above it")
		}
		dir = parent
	}
}

// Packages reads every package of the named modules (directories of root).
func Packages(root string, modules ...string) ([]Package, error) {
	byDir := make(map[string]*Package)
	fset := token.NewFileSet()
	for _, module := range modules {
		err := filepath.WalkDir(filepath.Join(root, module), func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() {
				if base := d.Name(); base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
					return filepath.SkipDir
				}
				return nil
			}
			if !strings.HasSuffix(name, ".go") {
				return nil
			}
			file, err := parser.ParseFile(fset, name, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, filepath.Dir(name))
			if err != nil {
				return err
			}
			rel = filepath.ToSlash(rel)
			p := byDir[rel]
			if p == nil {
				p = &Package{Path: rel}
				byDir[rel] = p
			}
			for _, spec := range file.Imports {
				path, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				path = strings.TrimPrefix(path, Prefix)
				if strings.HasSuffix(name, "_test.go") {
					p.TestImports = append(p.TestImports, path)
				} else {
					p.Imports = append(p.Imports, path)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	out := make([]Package, 0, len(byDir))
	for _, p := range byDir {
		p.Imports = compact(p.Imports)
		p.TestImports = compact(p.TestImports)
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b Package) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

func compact(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}

// Own reports whether an import of a Package belongs to this repository.
func Own(path string) bool {
	head, _, _ := strings.Cut(path, "/")
	return head == "broker" || head == "loadgen" || head == "ci"
}

// Files lists the files of the repository, slash-separated and relative to
// root: those git tracks or would track, or every file of the tree where
// there is no repository (a source archive).
func Files(root string) ([]string, error) {
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	if out, err := cmd.Output(); err == nil {
		var files []string
		for name := range bytes.SplitSeq(out, []byte{0}) {
			if len(name) == 0 {
				continue
			}
			// A file deleted but not yet committed is listed still.
			if info, err := os.Lstat(filepath.Join(root, string(name))); err == nil && info.Mode().IsRegular() {
				files = append(files, string(name))
			}
		}
		return files, nil
	}
	var files []string
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == ".cache") {
			return filepath.SkipDir
		}
		if d.Type().IsRegular() {
			rel, err := filepath.Rel(root, name)
			if err != nil {
				return err
			}
			files = append(files, filepath.ToSlash(rel))
		}
		return nil
	})
	return files, err
}
