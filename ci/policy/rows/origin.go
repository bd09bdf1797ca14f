package rows

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/portask/portask/broker/sysmetrics"
)

// Origin says where rows come from; it is kept beside them.
type Origin struct {
	Command   string     `json:"command"`
	Commit    string     `json:"commit"`
	Go        string     `json:"go"`
	CPU       string     `json:"cpu"`
	Cores     int        `json:"cores"`
	Kernel    string     `json:"kernel"`
	Libraries []string   `json:"libraries"`
	Reference [2]float64 `json:"reference_ns"` // of adaptive.Calibration, least times
}

// libraries are those that encode and decode.
var libraries = []string{
	"github.com/andybalholm/brotli", "github.com/golang/snappy", "github.com/klauspost/compress", "github.com/pierrec/lz4/v4",
}

// Here describes this program on this machine.
func Here(commit string, reference [2]float64) Origin {
	m := sysmetrics.ThisMachine()
	o := Origin{
		Command: "perflab " + strings.Join(os.Args[1:], " "), Commit: commit, Go: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH,
		CPU: m.CPU, Cores: runtime.NumCPU(), Kernel: m.Kernel, Reference: reference,
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if slices.Contains(libraries, d.Path) {
				o.Libraries = append(o.Libraries, d.Path+"@"+d.Version)
			}
		}
	}
	return o
}

// Save writes o to a file.
func (o Origin) Save(name string) error {
	b, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o644)
}

// ReadOrigin is the inverse of Save.
func ReadOrigin(name string) (o Origin, err error) {
	b, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(b, &o)
	}
	if err != nil {
		return o, fmt.Errorf("origin of rows, %s: %w", name, err)
	}
	return o, nil
}
