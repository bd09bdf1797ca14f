package verdict

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/portask/portask/ci/internal/jsonfile"
)

// maxBytes of a verdict.json that Read takes: 100 benchmarks with 64 dots and
// 20 functions each stay below 2 MiB.
const maxBytes = 16 << 20

// Write prints v as indented JSON. Version is set.
func (v *Verdict) Write(w io.Writer) error {
	v.Version = Version
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// ReadFile is Read of a file. Errors name it.
func ReadFile(name string) (*Verdict, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	v, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}

// Read parses what Write printed. It refuses a file of more than 16 MiB, of
// another version, or whose decision is none.
func Read(r io.Reader) (*Verdict, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxBytes {
		return nil, fmt.Errorf("verdict: more than %d bytes", maxBytes)
	}
	v := new(Verdict)
	if err := jsonfile.Unmarshal(b, v); err != nil {
		return nil, fmt.Errorf("verdict: %w", err)
	}
	if v.Version != Version {
		return nil, fmt.Errorf("verdict: version %d, want %d", v.Version, Version)
	}
	switch v.Decision {
	case Pass, Fail, Inconclusive, Invalid:
		return v, nil
	}
	return nil, fmt.Errorf("verdict: decision %q is none", v.Decision)
}
