package scenario

import (
	"embed"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/portask/portask/broker/config/document"
)

// The scenarios that ship with the program. The repository shows them in
// configs/scenarios; a test keeps both the same.
//
//go:embed shipped/*.yaml
var shipped embed.FS

// Shipped are the names of the scenarios that the program brings along.
func Shipped() []string {
	files, err := shipped.ReadDir("shipped")
	if err != nil {
		panic("scenario: embedded files: " + err.Error())
	}
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = strings.TrimSuffix(f.Name(), ".yaml")
	}
	return names
}

// Open reads the file of that name or, if there is none, the shipped scenario.
func Open(name string, settings ...Setting) (*Scenario, error) {
	if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
		return Load(name, settings...)
	}
	file := name + ".yaml"
	data, err := shipped.ReadFile(path.Join("shipped", file))
	if err != nil {
		near := ""
		if n := document.Nearest(name, Shipped()); n != "" {
			near = "; did you mean " + n + "?"
		}
		return nil, fmt.Errorf("%s: no such file, and no scenario of that name is shipped%s", name, near)
	}
	return Parse(file, data, settings...)
}
