package corpus

import (
	"fmt"
	"path/filepath"
	"strings"
)

// FromFile reads one file, at most 256 MiB of it.
func FromFile(name string) ([]File, error) {
	b, err := readMost(name, dirBytesMax)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 {
		return nil, fmt.Errorf("%s: is empty", name)
	}
	class := strings.ToLower(strings.TrimPrefix(filepath.Ext(name), "."))
	if class == "" {
		class = "file"
	}
	return []File{{Name: filepath.Base(name), Class: class, Bytes: b}}, nil
}
