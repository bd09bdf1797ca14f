// Package selftest is the laboratory's test of itself: gates on a head that is
// the base, and on heads that are known to be slower, and what the gate said of
// them. Every gate that was begun is kept and counted.
package selftest

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/portask/portask/ci/sample"
)

// Kind is what is done to the head.
type Kind string

// The kinds.
const (
	// AA: functions that nothing calls are added, so that the head is another
	// program that does the same.
	AA Kind = "aa"
	// CPU: the body of the benchmark's loop runs once more in so many per cent
	// of its iterations.
	CPU Kind = "cpu"
	// Alloc: one more allocation of 16 bytes in each iteration.
	Alloc Kind = "alloc"
	// Syscall: one more system call in each iteration.
	Syscall Kind = "syscall"
	// Tail: a sleep of 1 ms in 2 % of the iterations.
	Tail Kind = "tail"
)

// Kinds in the order of the table.
var Kinds = []Kind{AA, CPU, Alloc, Syscall, Tail}

// tailPeriod: one in so many iterations sleeps.
const tailPeriod = 50

// extraName is the file that an injection adds to the package.
const extraName = "perflab_injected_test.go"

// Inject returns the files, by path below root with slashes, that change the
// benchmark b in the copy of a repository at root. Every loop of b.N iterations
// and every b.Loop in the benchmark's function is changed, in sub-benchmarks
// too. percent is CPU's, above 0 and at most 100, and is rounded to one in a
// whole number of iterations.
func Inject(root string, b sample.Bench, kind Kind, percent float64) (map[string][]byte, error) {
	dir := path.Join(b.Module, b.Package)
	function, _, _ := strings.Cut(b.Name, "/")
	files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(dir), "*_test.go"))
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		edited, pkg, err := injectFile(src, "Benchmark"+function, kind, percent)
		if errors.Is(err, errNotHere) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("inject into %s: %w", b, err)
		}
		edits := map[string][]byte{path.Join(dir, extraName): []byte(extra(pkg, kind))}
		if kind != AA {
			edits[path.Join(dir, filepath.Base(name))] = edited
		}
		return edits, nil
	}
	return nil, fmt.Errorf("inject into %s: no function Benchmark%s in %s", b, function, dir)
}

var errNotHere = errors.New("the function is not in this file")

// insertion of text before the byte at.
type insertion struct {
	at   int
	text string
}

func injectFile(src []byte, function string, kind Kind, percent float64) (edited []byte, pkg string, err error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "x_test.go", src, parser.SkipObjectResolution)
	if err != nil {
		return nil, "", err
	}
	var body *ast.BlockStmt
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == function {
			body = f.Body
		}
	}
	if body == nil {
		return nil, "", errNotHere
	}
	offset := func(p token.Pos) int { return fset.Position(p).Offset }
	var at []insertion
	ast.Inspect(body, func(n ast.Node) bool {
		loop := loopBody(n)
		if loop == nil {
			return true
		}
		inner := string(src[offset(loop.Lbrace)+1 : offset(loop.Rbrace)])
		var text string
		local := ""
		switch kind {
		case CPU:
			local = "perflabCount := 0; "
			text = fmt.Sprintf("; if perflabCount++; perflabCount == %d { perflabCount = 0\n%s\n}; ", period(percent), inner)
		case Tail:
			local = "perflabCount := 0; "
			text = fmt.Sprintf("; if perflabCount++; perflabCount == %d { perflabCount = 0; perflabSleep() }; ", tailPeriod)
		case Alloc:
			text = "; perflabSink = new([2]int64); "
		case Syscall:
			text = "; perflabCall(); "
		}
		at = append(at, insertion{offset(n.Pos()), local}, insertion{offset(loop.Rbrace), text})
		return false
	})
	if kind == CPU && (!(percent > 0) || percent > 100) {
		return nil, "", fmt.Errorf("%v per cent, must be above 0 and at most 100", percent)
	}
	if len(at) == 0 && kind != AA {
		return nil, "", fmt.Errorf("%s has no loop of b.N iterations and no b.Loop", function)
	}
	slices.SortStableFunc(at, func(a, b insertion) int { return a.at - b.at })
	out := make([]byte, 0, len(src)*2)
	last := 0
	for _, i := range at {
		out = append(out, src[last:i.at]...)
		out = append(out, i.text...)
		last = i.at
	}
	return append(out, src[last:]...), file.Name.Name, nil
}

// period of the iterations that run the body again.
func period(percent float64) int { return max(int(100/percent+0.5), 1) }

// loopBody returns the body of a loop over b.Loop() or b.N, nil otherwise.
func loopBody(n ast.Node) *ast.BlockStmt {
	selects := func(e ast.Expr, name string) bool {
		s, ok := e.(*ast.SelectorExpr)
		return ok && s.Sel.Name == name
	}
	switch l := n.(type) {
	case *ast.ForStmt:
		if c, ok := l.Cond.(*ast.CallExpr); ok && selects(c.Fun, "Loop") {
			return l.Body
		}
		if c, ok := l.Cond.(*ast.BinaryExpr); ok && (selects(c.Y, "N") || selects(c.X, "N")) {
			return l.Body
		}
	case *ast.RangeStmt:
		if selects(l.X, "N") {
			return l.Body
		}
	}
	return nil
}

// extra is the file beside the benchmark.
func extra(pkg string, kind Kind) string {
	switch kind {
	case CPU:
		return "package " + pkg + "\n"
	case Alloc:
		return "package " + pkg + "\n\nvar perflabSink *[2]int64\n"
	case Syscall:
		return "package " + pkg + "\n\nimport \"syscall\"\n\nfunc perflabCall() { syscall.Getpid() }\n"
	case Tail:
		return "package " + pkg + "\n\nimport \"time\"\n\nfunc perflabSleep() { time.Sleep(time.Millisecond) }\n"
	}
	// Functions of several lengths, which the linker keeps since it cannot know
	// that there is always an argument.
	return "package " + pkg + `

import (
	"os"
	"strings"
)

func init() {
	if len(os.Args) == 0 {
		println(perflabInert(os.Environ()), perflabInertToo(7))
	}
}

//go:noinline
func perflabInert(all []string) string {
	var b strings.Builder
	for i, s := range all {
		if i%2 == 0 {
			b.WriteString(strings.ToUpper(s))
		}
	}
	return b.String()
}

//go:noinline
func perflabInertToo(n int) int {
	if n < 2 {
		return n
	}
	return perflabInertToo(n-1) + perflabInertToo(n-2)
}
`
}
