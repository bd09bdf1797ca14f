package load

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/portask/portask/loadgen/verify"
)

// The page of results names every field that a result can have, and every kind
// of problem.
func TestPageOfResults(t *testing.T) {
	b, err := os.ReadFile("../../docs/results.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	seen := map[reflect.Type]bool{}
	var walk func(x reflect.Type)
	walk = func(x reflect.Type) {
		for x.Kind() == reflect.Pointer || x.Kind() == reflect.Slice {
			x = x.Elem()
		}
		if x.Kind() != reflect.Struct || seen[x] || x == reflect.TypeFor[Histograms]() || !strings.HasPrefix(x.PkgPath(), "github.com/portask") {
			return
		}
		seen[x] = true
		for i := range x.NumField() {
			f := x.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name != "" && name != "-" && !strings.Contains(page, "`"+name+"`") {
				t.Errorf("%v.%s: the page does not name `%s`", x, f.Name, name)
			}
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[Result]())
	if !seen[reflect.TypeFor[verify.Counts]()] || !seen[reflect.TypeFor[Interval]()] {
		t.Errorf("walked %v", seen)
	}
	for _, kind := range []string{Lost, Duplicated, Reordered, Corrupt, Phantom, Misplaced, OffsetUsed, Interrupted, Unsettled, DispatchLag, RateMissed, Saturated, BusyCPU, Empty} {
		if !strings.Contains(page, kind) {
			t.Errorf("the page does not name the kind %s", kind)
		}
	}
}
