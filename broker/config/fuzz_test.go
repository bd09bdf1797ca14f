package config

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/portask/portask/broker/config/document"
)

func FuzzYAML(f *testing.F) { fuzz(f, document.YAML) }
func FuzzJSON(f *testing.F) { fuzz(f, document.JSON) }
func FuzzTOML(f *testing.F) { fuzz(f, document.TOML) }

// fuzz: no input makes the parser panic or hang; every refusal names what is
// wrong; whatever is accepted is read back, in each format, as the same.
func fuzz(f *testing.F, format document.Format) {
	stories, err := filepath.Glob(filepath.Join("testdata", "*.txtar"))
	if err != nil {
		f.Fatal(err)
	}
	for _, story := range stories {
		ar, err := txtar.ParseFile(story)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range ar.Files {
			if got, err := document.FormatOf(file.Name); err == nil && got == format {
				f.Add(file.Data)
			}
		}
	}
	for _, s := range []*shop{newShop(), {name: "\x00\u2028\U0001f375\"\\", open: true, clerks: -1, shelf: -1, keepMs: 1, currency: 2, sells: []string{"rope"}}} {
		var b bytes.Buffer
		if err := s.table().Write(&b, format, nil, nil); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	deep := map[document.Format]string{document.YAML: "[", document.JSON: `{"a":`, document.TOML: "a=[["}[format]
	f.Add(bytes.Repeat([]byte(deep), 500))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newShop()
		src := Sources{File: "x." + format.String()}
		snap, err := s.table().load(src, data)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || len(e.Problems) == 0 || snap != nil {
				t.Fatalf("%T %v", err, err)
			}
			for _, p := range e.Problems {
				if p.Text == "" {
					t.Fatalf("a problem without a text: %+v", p)
				}
			}
			return
		}
		for _, f := range []document.Format{document.YAML, document.JSON, document.TOML} {
			var b bytes.Buffer
			if err := s.table().Write(&b, f, nil, nil); err != nil {
				t.Fatal(err)
			}
			again := newShop()
			again.key = s.key // a secret is not written
			back, err := again.table().load(Sources{File: "x." + f.String()}, b.Bytes())
			if err != nil {
				t.Fatalf("%s: %v\n%s", f, err, b.Bytes())
			}
			if ch := Diff(snap, back); len(ch) > 0 {
				t.Fatalf("%s: %+v\n%s", f, ch, b.Bytes())
			}
		}
	})
}
