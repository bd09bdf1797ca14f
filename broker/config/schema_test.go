package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/portask/portask/broker/config/document"
)

// A table that contradicts itself is found when it is made.
func TestContradictions(t *testing.T) {
	var n int
	var s string
	key := func(name string) Key { return Key{Name: name, Doc: "Something.", Value: Count(&n, 0, 10)} }
	with := func(name string, f func(*Key)) Key {
		k := key(name)
		f(&k)
		return k
	}
	for want, keys := range map[string][]Key{
		"a.x is there twice":                    {key("x"), key("x")},
		"same variable":                         {key("x_y"), key("x.y")},
		"no documentation":                      {with("x", func(k *Key) { k.Doc = "" })},
		"no value":                              {with("x", func(k *Key) { k.Value = nil })},
		"Kubernetes":                            {key("port")},
		"is no name":                            {key("maxSize")},
		"both a setting and a group":            {key("x"), key("x.y")},
		"the same flag":                         {with("x", func(k *Key) { k.Flag = "f" }), with("y", func(k *Key) { k.Flag = "f" })},
		"the same field":                        {with("x", func(k *Key) { k.Field = "f" }), with("y", func(k *Key) { k.Field = "f" })},
		"default of a.x: 0 is less than 1":      {with("x", func(k *Key) { k.Value = Count(&n, 1, 2) })},
		`the default of a.x: : want one or two`: {with("x", func(k *Key) { k.Value = OneOf(&s, Words("one", "two")...) })},
	} {
		func() {
			defer func() {
				if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), want) {
					t.Errorf("%v; want %q", r, want)
				}
			}()
			New(Options{Env: "P_", Version: 1}, Area{"a", "Doc.", keys})
		}()
	}
}

// Every number takes its own limits and nothing beyond, through every layer.
func TestLimitsAreInclusive(t *testing.T) {
	for k := range newShop().table().Keys() {
		v, ok := k.Value.(*Number)
		if !ok {
			continue
		}
		for _, n := range []int64{v.min, v.max} {
			if err := v.setText(v.format(n)); err != nil || v.get() != n {
				t.Errorf("%s = %s: %v", k.Path(), v.format(n), err)
			}
		}
		for _, n := range []int64{v.min - 1, v.max + 1} {
			if err := v.within(n, ""); err == nil && !slices.ContainsFunc(v.words, func(w Word[int64]) bool { return w.Value == n }) {
				t.Errorf("%s took %d", k.Path(), n)
			}
		}
	}
}

// What is written is what is read, in each format, whatever the values.
func TestWriteReadsBack(t *testing.T) {
	nasty := newShop()
	nasty.name = "a: \"b\" #c\t\n\\ \x7f\u0085\u2028\ufeff\U0001f375 [x] 'y' "
	nasty.open, nasty.clerks, nasty.shelf, nasty.pause, nasty.currency, nasty.sells = true, -1, -1, 0, 2, []string{"nails"}
	plain := newShop()
	for _, name := range []string{"x", "true", "NO", "0x1F", "1e3", "64MiB", "30s", "-", "~", "null", "2001-01-01", "1.5", "a.b/c-d", "=", " x", "0o17", "1_000", "y"} {
		plain.name = name
		for _, s := range []*shop{plain, nasty} {
			for _, f := range []document.Format{document.YAML, document.JSON, document.TOML} {
				var b bytes.Buffer
				if err := s.table().Write(&b, f, []string{"A head.", "", "Of three lines."}, nil); err != nil {
					t.Fatal(err)
				}
				got := newShop()
				got.key = s.key
				if _, err := got.table().load(Sources{File: "x." + f.String()}, b.Bytes()); err != nil {
					t.Fatalf("%v\n%s", err, b.String())
				} else if fmt.Sprint(*got) != fmt.Sprint(*s) {
					t.Errorf("%s:\ngot  %q\nwant %q\n%s", f, fmt.Sprint(*got), fmt.Sprint(*s), b.String())
				}
			}
		}
	}
}

func TestWriteEntries(t *testing.T) {
	s := newShop()
	s.open, s.deep = true, 7
	for f, want := range map[document.Format]string{
		document.YAML: `# Head.
version: 3

# Where it is.
place:
  # Because.
  open: true
  cellar:
    # Steps down. Count, 0 to 100.
    depth: 7

# What there is.
goods:
  # The assortment. List of tea, milk, rope, nails. Live.
  sells: [tea, milk]
`,
		document.TOML: `# Head.
version = 3

# Where it is.
[place]
# Because.
open = true

[place.cellar]
# Steps down. Count, 0 to 100.
depth = 7

# What there is.
[goods]
# The assortment. List of tea, milk, rope, nails. Live.
sells = ["tea", "milk"]
`,
		document.JSON: `{
  "version": 3,
  "place": {
    "open": true,
    "cellar": {
      "depth": 7
    }
  },
  "goods": {
    "sells": ["tea", "milk"]
  }
}
`,
	} {
		var b bytes.Buffer
		err := s.table().Write(&b, f, []string{"Head."}, []Entry{{Path: "place.open", Comment: "Because."}, {Path: "place.cellar.depth"}, {Path: "goods.sells"}})
		if err != nil || b.String() != want {
			t.Errorf("%v: %v\ngot:\n%s\nwant:\n%s", f, err, b.String(), want)
		}
	}
	if err := s.table().Write(&bytes.Buffer{}, document.YAML, nil, []Entry{{Path: "place.door"}}); err == nil {
		t.Error("an unknown entry was written")
	}
}

func TestReference(t *testing.T) {
	var b strings.Builder
	if err := newShop().table().Reference(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"### place\n\nWhere it is.\n\n| key | default | takes | live | |\n",
		"| `place.name` | `corner` | String, not empty |  | What is written above the door. Flag `--name`. |\n",
		"| `staff.clerks` | `2` | Count, 0 to 64, or family | yes | How many serve. Flag `--clerks`. |\n",
		"| `staff.key` |  | String |  | Opens the back door. |\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("missing %q in\n%s", want, b.String())
		}
	}
}

// An independent validator accepts by the schema what Load accepts, and refuses
// what Load refuses for a reason that the schema can know.
func TestJSONSchema(t *testing.T) {
	raw, err := newShop().table().JSONSchema("Shop")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("shop.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("shop.json")
	if err != nil {
		t.Fatal(err)
	}
	for text, ok := range map[string]bool{
		`{"version": 3}`: true,
		`{"version": 3, "$schema": "x", "place": {"name": "x", "open": true, "cellar": {"depth": 100}}, "staff": null}`:                 true,
		`{"version": 3, "staff": {"clerks": "family", "pause": "1d12h", "key": ""}}`:                                                    false, // pause: Load alone knows
		`{"version": 3, "staff": {"clerks": "family", "pause": "never"}, "goods": {"shelf": 65536, "keep": "1.5s", "sells": ["rope"]}}`: true,
		`{"version": 3, "goods": {"shelf": "unlimited", "currency": "bead"}}`:                                                           true,
		`{"version": 2}`:                       false,
		`{}`:                                   false,
		`{"version": 3, "door": 1}`:            false,
		`{"version": 3, "place": {"door": 1}}`: false,
		`{"version": 3, "place": {"open": "true"}}`:           false,
		`{"version": 3, "place": {"cellar": {"depth": 101}}}`: false,
		`{"version": 3, "staff": {"clerks": "many"}}`:         false,
		`{"version": 3, "staff": {"pause": 30}}`:              false,
		`{"version": 3, "goods": {"shelf": "64MB"}}`:          false,
		`{"version": 3, "goods": {"currency": "gold"}}`:       false,
		`{"version": 3, "goods": {"sells": []}}`:              false,
		`{"version": 3, "goods": {"sells": ["tea", "tea"]}}`:  false,
		`{"version": 3, "goods": {"sells": "tea"}}`:           false,
	} {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		_, lerr := newShop().table().load(Sources{File: "x.json"}, []byte(text))
		verr := schema.Validate(v)
		if strings.Contains(text, "1d12h") {
			if verr != nil || lerr == nil {
				t.Errorf("%s: schema %v, Load %v", text, verr, lerr)
			}
			continue
		}
		// Load reads older versions too.
		if (verr == nil) != ok || (lerr == nil) != ok && !strings.Contains(text, `"version": 2`) {
			t.Errorf("%s: want %v; schema: %v; Load: %v", text, ok, verr, lerr)
		}
	}
}
