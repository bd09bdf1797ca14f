package corpus

import (
	"crypto/sha256"
	"encoding/hex"
	"runtime"
	"testing"
)

// Generated data are the same in every build, or results of before and after do
// not compare. compressed is left out: its bytes are the compressor's.
func TestGolden(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("other processors may round the last bit of a logarithm otherwise")
	}
	for kind, want := range golden {
		f, err := Generate(kind, 100_000, 1)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(f.Bytes)
		if got := hex.EncodeToString(sum[:8]); got != want {
			t.Errorf("%q: %q,", kind, got)
		}
	}
	for _, kind := range Kinds {
		if _, ok := golden[kind]; !ok && kind != "compressed" {
			t.Errorf("%s has no golden value", kind)
		}
	}
}

var golden = map[string]string{
	"json":        "b6cf9866d7610150",
	"html":        "b835383267a35b15",
	"text":        "da8708e2ca9a87d0",
	"logs":        "92e9983444996abe",
	"metrics":     "9a029d12b984e6b3",
	"csv":         "4e62fa10ee6a20a9",
	"binary":      "b8cd3a3c08512c79",
	"protobuf":    "f604eb6c35982318",
	"zeros":       "9192c25b734fcbad",
	"random":      "c9f00ba100204d38",
	"entropy:0.3": "3b0bcd3a9555da22",
}
