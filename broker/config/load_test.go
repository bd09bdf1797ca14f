package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/portask/portask/broker/config/document"
	"github.com/portask/portask/broker/fault"
)

// A story is an archive of a configuration file, perhaps variables (env) and
// flags, and what comes out of it: every setting that is no default with its
// origin, notes, or every problem. -update writes the outcome.
func TestStories(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.txtar"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d stories, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var src Sources
			var data []byte
			var want *txtar.File
			for i := range ar.Files {
				f := &ar.Files[i]
				switch f.Name {
				case "env":
					src.Env = strings.Split(strings.TrimSuffix(string(f.Data), "\n"), "\n")
				case "flags":
					for line := range strings.Lines(string(f.Data)) {
						path, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
						src.Flags = append(src.Flags, Override{Path: path, Name: "--" + path[strings.LastIndexByte(path, '.')+1:], Text: text})
					}
				case "want":
					want = f
				default:
					src.File, data = f.Name, f.Data
				}
			}
			snap, err := newShop().table().load(src, data)
			got := outcome(snap, err)
			if want == nil {
				t.Fatal("the story has no end; run with -update")
			}
			if got == string(want.Data) {
				return
			}
			if *update {
				want.Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("got:\n%s\nwant:\n%s", got, want.Data)
		})
	}
}

func outcome(snap *Snapshot, err error) string {
	if err != nil {
		return "refused\n" + err.Error() + "\n"
	}
	var b strings.Builder
	for _, n := range snap.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	for _, s := range snap.Settings {
		if s.Origin.Layer != LayerDefault {
			fmt.Fprintf(&b, "%s = %s (%s)\n", s.Path, s.Text, s.Origin)
		}
	}
	if b.Len() == 0 {
		return "all defaults\n"
	}
	return b.String()
}

// The same settings in three formats are the same settings, in the fields too.
func TestFormatsAgree(t *testing.T) {
	files := map[string]string{
		"a.yaml": "version: 3\nplace:\n  name: \"Ü\\t\\\"x\\\"\"\n  open: true\n  cellar:\n    depth: 9\nstaff: {clerks: 3, pause: 12h}\ngoods:\n  shelf: 65536\n  keep: 1500ms\n  currency: bead\n  sells: [rope, tea]\n",
		"b.json": `{"version": 3, "$schema": "s.json", "place": {"name": "Ü\t\"x\"", "open": true, "cellar": {"depth": 9}}, "staff": {"clerks": 3, "pause": "720m"}, "goods": {"shelf": "64KiB", "keep": "1.5s", "currency": "bead", "sells": ["rope", "tea"]}}`,
		"c.toml": "version = 3\nplace.name = 'Ü\t\"x\"'\nplace.open = true\nplace.cellar.depth = 9\n[staff]\nclerks = 3\npause = \"11h60m\"\n[goods]\nshelf = 65_536\nkeep = \"1s500ms\"\ncurrency = \"bead\"\nsells = [\n  \"rope\",\n  \"tea\",\n]\n",
	}
	want := *newShop()
	want.name, want.open, want.deep, want.clerks, want.pause, want.shelf, want.keepMs, want.currency, want.sells =
		"Ü\t\"x\"", true, 9, 3, 12*3600e9, 65536, 1500, 2, []string{"rope", "tea"}
	for name, text := range files {
		s := newShop()
		if _, err := s.table().load(Sources{File: name}, []byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if fmt.Sprint(*s) != fmt.Sprint(want) {
			t.Errorf("%s:\ngot  %v\nwant %v", name, *s, want)
		}
	}
}

func TestErrorIsAFault(t *testing.T) {
	_, err := newShop().table().load(Sources{Env: []string{"SHOP_PLACE_OPEN=maybe"}}, nil)
	if !errors.Is(err, fault.Invalid) || fault.InfoOf(err).Category != fault.CategoryConfiguration {
		t.Errorf("%v", err)
	}
	_, err = newShop().table().Load(Sources{File: filepath.Join(t.TempDir(), "none.yaml")})
	if !errors.Is(err, fault.NotFound) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestFileTooLong(t *testing.T) {
	for _, name := range []string{"a.yaml", "a.json", "a.toml"} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, bytes.Repeat([]byte("# a\n"), document.FileBytesMax/4+1), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := newShop().table().Load(Sources{File: file})
		if err == nil || !strings.Contains(err.Error(), "longer than 256KiB") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The worst of the files that are no configuration is refused quickly too.
func TestHostileFile(t *testing.T) {
	var wide, unknown strings.Builder
	for i := range document.FieldsMax + 1 {
		fmt.Fprintf(&wide, "k%d: 1\n", i)
	}
	for i := range document.FieldsMax - 1 {
		fmt.Fprintf(&unknown, "place%d: 1\n", i)
	}
	for text, want := range map[string]string{
		wide.String():                     "x.yaml:1001: more than 1000 names in a table",
		"version: 3\n" + unknown.String(): "x.yaml:1000: place998: unknown key",
	} {
		_, err := newShop().table().load(Sources{File: "x.yaml"}, []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.300v; want %q", err, want)
		}
	}
}

// A secret is neither shown nor quoted in a problem, and a change of it is seen.
func TestSecret(t *testing.T) {
	load := func(env string) *Snapshot {
		t.Helper()
		snap, err := newShop().table().load(Sources{Env: []string{env}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return snap
	}
	old, now := load("SHOP_STAFF_KEY=hunter2"), load("SHOP_STAFF_KEY=hunter3")
	if s, _ := old.Lookup("staff.key"); s.Text != "(secret)" {
		t.Errorf("%+v", s)
	}
	if s, _ := load("SHOP_PLACE_NAME=x").Lookup("staff.key"); s.Text != "(not set)" {
		t.Errorf("%+v", s)
	}
	ch := Diff(old, now)
	if len(ch) != 1 || ch[0].Path != "staff.key" || strings.Contains(fmt.Sprintf("%+v", ch), "hunter") {
		t.Errorf("%+v", ch)
	}
	var b bytes.Buffer
	s := newShop()
	s.key = "hunter2"
	if err := s.table().Write(&b, document.YAML, nil, nil); err != nil || strings.Contains(b.String(), "hunter2") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

func TestDiffAndReloaded(t *testing.T) {
	load := func(text string) *Snapshot {
		t.Helper()
		snap, err := newShop().table().load(Sources{File: "a.yaml"}, []byte("version: 3\n"+text))
		if err != nil {
			t.Fatal(err)
		}
		return snap
	}
	old := load("place: {name: old}\nstaff: {clerks: 1}\n")
	now := load("place: {name: new}\nstaff: {clerks: 7}\n")
	ch := Diff(old, now)
	if len(ch) != 2 || ch[0].Path != "place.name" || ch[0].Live || ch[0].New != "new" || ch[1].Path != "staff.clerks" || !ch[1].Live || ch[1].Old != "1" || ch[1].Origin.Line != 3 {
		t.Errorf("%+v", ch)
	}
	running := old.Reloaded(now)
	if ch := Diff(running, now); len(ch) != 1 || ch[0].Path != "place.name" {
		t.Errorf("after the reload: %+v", ch)
	}
	if ch := Diff(running, load("place: {name: old}\nstaff: {clerks: 7}\n")); len(ch) != 0 {
		t.Errorf("after the restart-only change was taken back: %+v", ch)
	}
}
