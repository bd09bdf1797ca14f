package bench

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
)

// The protocol between a worker and this package, one line a message, commands
// on descriptor 3, answers on descriptor 4 of the worker, so that standard
// input and output stay the benchmark's.
//
//	PERFLAB_WORKER=list     worker: begin "BenchmarkA/b"    before the first iteration
//	                        worker: end "BenchmarkA/b" ok   after it; or failed
//	                        worker: name "BenchmarkA/b"     for each leaf it comes to
//	PERFLAB_WORKER=serve    worker: ready "BenchmarkA/b"    after one iteration
//	                        command: 250
//	                        worker: 250 10034551 9981220 500 64000
//
// that is the iterations, the nanoseconds of the timed part on the wall and of
// the process's CPU, the allocations and their bytes. CPU time is taken by the
// methods that start, stop and reset the benchmark's timer: what a benchmark
// does before its loop, and the collection that package testing forces before
// each call, is in none of the figures. The end of the commands ends the
// worker; its TestMain goes on as after any benchmark.

//go:embed inside/worker.go.txt
var workerSource []byte

// overlayFile is what go build's -overlay reads.
type overlayFile struct {
	Replace map[string]string
}

// writeOverlay writes into dir an overlay that turns the package testing of
// goroot into a worker's, and returns its file name. The benchmark loop itself
// is compiled as ever.
func writeOverlay(goroot, dir string) (string, error) {
	testing := filepath.Join(goroot, "src", "testing")
	name := filepath.Join(testing, "benchmark.go")
	src, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("overlay: %w", err)
	}
	patched, err := patchBenchmark(src)
	if err != nil {
		return "", fmt.Errorf("overlay of %s: %w", name, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	benchmark, worker := filepath.Join(dir, "benchmark.go"), filepath.Join(dir, "perflab_worker.go")
	list, err := json.Marshal(overlayFile{Replace: map[string]string{
		name: benchmark,
		filepath.Join(testing, "perflab_worker.go"): worker,
	}})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	for file, content := range map[string][]byte{benchmark: patched, worker: workerSource, overlay: list} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return "", err
		}
	}
	return overlay, nil
}

// patchBenchmark inserts calls into package testing's benchmark.go. It
// refuses a file in which it does not find the places, rather than guess: a
// toolchain may write them in another way one day.
func patchBenchmark(src []byte) ([]byte, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "benchmark.go", src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	type insertion struct {
		at   int
		text string
	}
	var todo []insertion
	missing := map[string]bool{"StartTimer": true, "StopTimer": true, "ResetTimer": true, "run1": true, "launch": true}
	for _, decl := range file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || fn.Recv == nil || len(fn.Recv.List) != 1 || len(fn.Recv.List[0].Names) != 1 || fn.Body == nil {
			continue
		}
		if star, ok := fn.Recv.List[0].Type.(*ast.StarExpr); !ok {
			continue
		} else if id, ok := star.X.(*ast.Ident); !ok || id.Name != "B" {
			continue
		}
		b := fn.Recv.List[0].Names[0].Name
		first, last := fset.Position(fn.Body.Lbrace).Offset+1, fset.Position(fn.Body.Rbrace).Offset
		switch fn.Name.Name {
		case "StartTimer":
			todo = append(todo, insertion{last, "; perflabStarted(" + b + ")\n"})
		case "StopTimer":
			todo = append(todo, insertion{first, " perflabStopped(" + b + "); "})
		case "ResetTimer":
			todo = append(todo, insertion{last, "; perflabZeroed(" + b + ")\n"})
		case "run1":
			todo = append(todo, insertion{first, " perflabBegun(" + b + "); defer perflabEnded(" + b + "); "})
		case "launch":
			// After the deferred signal that the benchmark has ended.
			if len(fn.Body.List) == 0 {
				continue
			}
			after, ok := fn.Body.List[0].(*ast.DeferStmt)
			if !ok {
				continue
			}
			todo = append(todo, insertion{fset.Position(after.End()).Offset, "; if perflabServe(" + b + ") { return }"})
		default:
			continue
		}
		delete(missing, fn.Name.Name)
	}
	for name := range missing {
		return nil, fmt.Errorf("no method %s of B as perflab knows it", name)
	}
	slices.SortFunc(todo, func(a, b insertion) int { return b.at - a.at })
	out := bytes.Clone(src)
	for _, in := range todo {
		out = slices.Insert(out, in.at, []byte(in.text)...)
	}
	if _, err := parser.ParseFile(token.NewFileSet(), "benchmark.go", out, 0); err != nil {
		return nil, fmt.Errorf("patched: %w", err)
	}
	return out, nil
}
