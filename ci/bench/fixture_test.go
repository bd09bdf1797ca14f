package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// files by path.
type files map[string]string

// small is a module that has nothing to do with this repository: a TestMain
// that exits by itself, benchmarks of both styles, sub-benchmarks, an external
// test package, and one that reads its testdata.
var small = files{
	"go.mod":           "module example.com/small\n\ngo 1.24\n",
	"README":           "not Go\n",
	"work/work.go":     "package work\n\nfunc Do(n int) (b []byte) {\n\tfor i := range n {\n\t\tb = append(b, byte(i))\n\t}\n\treturn b\n}\n",
	"work/testdata/in": "12345",
	"work/work_test.go": `package work

import (
	"fmt"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	fmt.Println("TestMain prints to standard output")
	os.Exit(m.Run())
}

func TestNothing(t *testing.T) { t.Fatal("tests do not run") }

var sink []byte

func BenchmarkCounted(b *testing.B) {
	for i := 0; i < b.N; i++ {
		sink = make([]byte, 64)
	}
}

func BenchmarkLoop(b *testing.B) {
	for _, size := range []int{8, 512} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			waste := 0
			for range 200_000 {
				sink = make([]byte, 32) // set-up: must be in no figure
				waste += len(sink)
			}
			for b.Loop() {
				sink = Do(size)
			}
			fmt.Println("benchmarks print, too", waste)
		})
	}
}

func BenchmarkTimer(b *testing.B) {
	for i := 0; i < b.N; i++ {
		b.StopTimer()
		sink = make([]byte, 128)
		b.StartTimer()
		sink[0]++
	}
}

func BenchmarkSkipped(b *testing.B) { b.Skip("not here") }

func Benchmarkish(b *testing.B) { b.Fatal("not a benchmark by its name") }
`,
	"work/extern_test.go": `package work_test

import (
	"os"
	"testing"

	"example.com/small/work"
)

func BenchmarkExtern(b *testing.B) {
	in, err := os.ReadFile("testdata/in")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		work.Do(len(in))
	}
}
`,
	"still/still_test.go":   "package still\n\nimport \"testing\"\n\nfunc BenchmarkStill(b *testing.B) {\n\tfor i := 0; i < b.N; i++ {\n\t}\n}\n",
	"broken/broken.go":      "package broken\n\nfunc F() int { return \"no\" }\n",
	"broken/broken_test.go": "package broken\n\nimport \"testing\"\n\nfunc BenchmarkF(b *testing.B) {\n\tfor b.Loop() {\n\t\tF()\n\t}\n}\n",
}

// edited changes of small: one more allocation, one benchmark's own source,
// one that is new, and the package that did not compile.
func edited() files {
	return files{
		"work/work.go": strings.Replace(small["work/work.go"], "(b []byte) {\n", "(b []byte) {\n\tleak = new(int)\n", 1) + "\nvar leak *int\n",
		"work/work_test.go": strings.Replace(small["work/work_test.go"], "make([]byte, 64)", "make([]byte, 65)", 1) +
			"\nfunc BenchmarkAdded(b *testing.B) {\n\tfor b.Loop() {\n\t}\n}\n",
		"broken/broken.go": "package broken\n\nfunc F() int { return 1 }\n",
	}
}

func (f files) write(t *testing.T, dir string) {
	t.Helper()
	for name, text := range f {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = cleanEnvironment("GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// repo makes a repository with a commit for each tree, one on top of the other.
func repo(t *testing.T, commits ...files) string {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	dir := t.TempDir()
	git(t, dir, "init", "-q", "-b", "main")
	for _, f := range commits {
		f.write(t, dir)
		git(t, dir, "add", "-A")
		git(t, dir, "commit", "-q", "-m", "change")
	}
	return dir
}
