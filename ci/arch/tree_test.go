package arch

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// maxLines of a Go file. Past some 600, look for the second idea; past this
// there is one. A generated file is exempt.
const maxLines = 700

// foreign are words that tie the repository to one machine or one mirror. The
// patterns are cut in two so that this file does not match itself.
var foreign = regexp.MustCompile(strings.Join([]string{
	`proxy\.golang` + `\.org`,
	`sum\.golang` + `\.org`,
	`goproxy\.` + `(cn|io)`,
	`registry\.npm` + `js`,
	`deb\.deb` + `ian\.org`,
	`(^|[^\w.])/wor` + `k/(main|shared)`,
	`(^|[^\w.])/ro` + `ot/`,
	`(^|[^\w.])/ho` + `me/[a-z]`,
	`(^|[^\w.])/tmp/ba` + `sh_jobs`,
}, "|"))

func TestTree(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err := Files(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no files found")
	}
	for _, name := range files {
		b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			t.Error(err)
			continue
		}
		if bytes.IndexByte(b[:min(len(b), 8000)], 0) >= 0 {
			continue // binary: profiles, compressed samples
		}
		for n, line := range bytes.Split(b, []byte{'\n'}) {
			if m := foreign.Find(line); m != nil {
				t.Errorf("%s:%d: names a machine or a mirror: %s", name, n+1, m)
			}
		}
		if path.Ext(name) == ".go" {
			lines := bytes.Count(b, []byte{'\n'})
			generated := bytes.Contains(b[:min(len(b), 400)], []byte("DO NOT EDIT"))
			if lines > maxLines && !generated {
				t.Errorf("%s: %d lines, more than %d; is there a second idea in it?", name, lines, maxLines)
			}
		}
	}
}

var (
	mdLink     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	makeTarget = regexp.MustCompile("`make ([a-z]+)[^`]*`")
	targetLine = regexp.MustCompile(`(?m)^([a-z][a-z0-9_-]*):`)
)

// Documentation names files and make targets; each must exist.
func TestDocumentationPointsAtThingsThatExist(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	targets := make(map[string]bool)
	for _, m := range targetLine.FindAllSubmatch(makefile, -1) {
		targets[string(m[1])] = true
	}
	files, err := Files(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if path.Ext(name) != ".md" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mdLink.FindAllSubmatch(b, -1) {
			link := string(m[1])
			if strings.Contains(link, "://") || strings.HasPrefix(link, "#") {
				continue
			}
			link, _, _ = strings.Cut(link, "#")
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(path.Join(path.Dir(name), link)))); err != nil {
				t.Errorf("%s: link to %s: no such file", name, link)
			}
		}
		for _, m := range makeTarget.FindAllSubmatch(b, -1) {
			if !targets[string(m[1])] {
				t.Errorf("%s: `make %s`: no such target", name, m[1])
			}
		}
	}
}
