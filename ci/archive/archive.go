// Package archive holds benchdata/ to its promise: what was measured is kept as
// it was. benchdata/MANIFEST has a line for each file, with its length and
// SHA-256; a file that grows (.jsonl) gets a further line, and all its lines
// hold for as many bytes from its beginning. Nothing in the manifest changes, lines are only added.
//
// A line is "SHA256 BYTES PATH", the path below benchdata with slashes.
package archive

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Dir is the archive's place below the repository, ManifestName its manifest.
const (
	Dir          = "benchdata"
	ManifestName = "MANIFEST"
)

// governed are the entries of Dir whose files must all be in the manifest: what
// the laboratory writes. Other files may be.
var governed = []string{"gate", "selftest", "objectives", "ratios", "history.jsonl", "inconclusive.jsonl"}

// Line is one of the manifest.
type Line struct {
	SHA256 string
	Bytes  int64
	Path   string
}

func (l Line) String() string { return fmt.Sprintf("%s %d %s", l.SHA256, l.Bytes, l.Path) }

// grows tells of files that are appended to.
func grows(name string) bool { return path.Ext(name) == ".jsonl" }

// Bounds of a manifest.
const (
	linesMax     = 200_000
	lineBytesMax = 4096
)

// Parse reads a manifest. Lines of one path come in the order of their lengths.
func Parse(r io.Reader) ([]Line, error) {
	var out []Line
	last := map[string]int64{}
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, lineBytesMax), lineBytesMax)
	n := 1
	for ; s.Scan(); n++ {
		f := strings.SplitN(s.Text(), " ", 3)
		if len(f) != 3 {
			return nil, fmt.Errorf("line %d: want SHA256 BYTES PATH", n)
		}
		l := Line{SHA256: f[0], Path: f[2]}
		var err error
		if l.Bytes, err = strconv.ParseInt(f[1], 10, 64); err != nil || l.Bytes < 0 || strconv.FormatInt(l.Bytes, 10) != f[1] {
			return nil, fmt.Errorf("line %d: length %q", n, f[1])
		}
		if b, err := hex.DecodeString(l.SHA256); err != nil || len(b) != sha256.Size || strings.ToLower(l.SHA256) != l.SHA256 {
			return nil, fmt.Errorf("line %d: %q is no SHA-256", n, l.SHA256)
		}
		if !fs.ValidPath(l.Path) || l.Path == "." {
			return nil, fmt.Errorf("line %d: path %q", n, l.Path)
		}
		if before, ok := last[l.Path]; ok && (!grows(l.Path) || l.Bytes <= before) {
			return nil, fmt.Errorf("line %d: %s is there already", n, l.Path)
		}
		last[l.Path] = l.Bytes
		if len(out) == linesMax {
			return nil, fmt.Errorf("line %d: more than %d lines", n, linesMax)
		}
		out = append(out, l)
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", n, err)
	}
	return out, nil
}

// read returns the manifest of the repository at root; none is empty.
func read(root string) ([]Line, error) {
	name := filepath.Join(root, Dir, ManifestName)
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	lines, err := Parse(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return lines, nil
}

// Check reads every file of the manifest and reports each that is missing or
// not what it was, and each governed file that is not in it; one that grows may
// still be growing for the first time, and enters with the next Add. Where there is a
// repository, the manifest must begin with what its last commit has.
func Check(root string) error {
	lines, err := read(root)
	if err != nil {
		return err
	}
	var bad []error
	listed := map[string]bool{}
	for _, l := range lines {
		listed[l.Path] = true
		if err := l.check(root); err != nil {
			bad = append(bad, err)
		}
	}
	files, err := tracked(root)
	if err != nil {
		return err
	}
	for _, name := range files {
		top, _, _ := strings.Cut(name, "/")
		if slices.Contains(governed, top) && !listed[name] && !grows(name) {
			bad = append(bad, fmt.Errorf("%s/%s is not in the manifest; perflab archive adds it", Dir, name))
		}
	}
	cmd := exec.Command("git", "show", "HEAD:./"+ManifestName)
	cmd.Dir = filepath.Join(root, Dir)
	if committed, err := cmd.Output(); err == nil {
		now, err := os.ReadFile(filepath.Join(root, Dir, ManifestName))
		if err != nil || !bytes.HasPrefix(now, committed) {
			bad = append(bad, fmt.Errorf("%s/%s does not begin with what was committed: lines are only added", Dir, ManifestName))
		}
	}
	return errors.Join(bad...)
}

// check compares a file's first bytes with the line.
func (l Line) check(root string) error {
	f, err := os.Open(filepath.Join(root, Dir, filepath.FromSlash(l.Path)))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() < l.Bytes || info.Size() != l.Bytes && !grows(l.Path) {
		return fmt.Errorf("%s/%s has %d bytes, the manifest says %d", Dir, l.Path, info.Size(), l.Bytes)
	}
	h := sha256.New()
	if _, err := io.CopyN(h, f, l.Bytes); err != nil {
		return fmt.Errorf("%s/%s: %w", Dir, l.Path, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != l.SHA256 {
		return fmt.Errorf("%s/%s was changed: its first %d bytes have the sum %.12s…, the manifest says %.12s…", Dir, l.Path, l.Bytes, got, l.SHA256)
	}
	return nil
}

// tracked lists the files below Dir that git tracks or would, sorted; all files
// where there is no repository.
func tracked(root string) ([]string, error) {
	dir := filepath.Join(root, Dir)
	cmd := exec.Command("git", "ls-files", "-z", "--cached")
	cmd.Dir = dir
	var files []string
	if out, err := cmd.Output(); err == nil {
		for name := range bytes.SplitSeq(out, []byte{0}) {
			if len(name) > 0 {
				files = append(files, string(name))
			}
		}
		slices.Sort(files)
		return files, nil
	}
	return all(root)
}

func all(root string) ([]string, error) {
	var files []string
	dir := filepath.Join(root, Dir)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		files = append(files, filepath.ToSlash(rel))
		return err
	})
	if errors.Is(err, fs.ErrNotExist) && len(files) == 0 { // there is no archive
		return nil, nil
	}
	slices.Sort(files)
	return files, err
}

// Add writes a line for each governed file that has none or that has grown, and
// returns them. A file that was changed is an error, and nothing is written.
func Add(root string) ([]Line, error) {
	lines, err := read(root)
	if err != nil {
		return nil, err
	}
	last := map[string]Line{}
	for _, l := range lines {
		if err := l.check(root); err != nil {
			return nil, err
		}
		last[l.Path] = l
	}
	files, err := all(root)
	if err != nil {
		return nil, err
	}
	var added []Line
	for _, name := range files {
		top, _, _ := strings.Cut(name, "/")
		if !slices.Contains(governed, top) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(root, Dir, filepath.FromSlash(name)))
		if err != nil {
			return nil, err
		}
		if before, ok := last[name]; ok && before.Bytes == int64(len(b)) {
			continue
		}
		sum := sha256.Sum256(b)
		added = append(added, Line{SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(b)), Path: name})
	}
	if len(added) == 0 {
		return nil, nil
	}
	var text strings.Builder
	for _, l := range added {
		text.WriteString(l.String() + "\n")
	}
	f, err := os.OpenFile(filepath.Join(root, Dir, ManifestName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(text.String())
	return added, errors.Join(err, f.Close())
}
