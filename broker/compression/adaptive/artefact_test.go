package adaptive

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/portask/portask/broker/fault"
)

func TestEmbeddedIsWithinItsLimits(t *testing.T) {
	if len(embedded) > ArtefactMaxBytes {
		t.Fatalf("%d bytes, more than %d", len(embedded), ArtefactMaxBytes)
	}
	a, err := Parse(embedded)
	if err != nil {
		t.Fatal(err)
	}
	if a.Provenance.Rows == "" || a.Provenance.CPU == "" || len(a.Provenance.Corpus) == 0 || len(a.Provenance.Libraries) == 0 {
		t.Errorf("provenance is incomplete: %+v", a.Provenance)
	}
	if Embedded().Hash() != a.Hash() {
		t.Error("hashes of the same bytes differ")
	}
}

func TestRefusals(t *testing.T) {
	edit := func(f func(m map[string]any)) []byte {
		var m map[string]any
		if err := json.Unmarshal(embedded, &m); err != nil {
			t.Fatal(err)
		}
		f(m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	profile := func(m map[string]any) map[string]any { return m["profiles"].([]any)[0].(map[string]any) }
	for name, tt := range map[string]struct {
		b     []byte
		code  fault.Code
		field string
	}{
		"too large":      {append(bytes.Clone(embedded), bytes.Repeat([]byte(" "), ArtefactMaxBytes)...), fault.TooLarge, "artefact"},
		"empty":          {nil, fault.Corrupted, "artefact"},
		"cut":            {embedded[:len(embedded)/2], fault.Corrupted, "artefact"},
		"other bytes":    {[]byte("\x28\xb5\x2f\xfd rubbish"), fault.Corrupted, "artefact"},
		"bytes follow":   {append(bytes.Clone(embedded), "{}"...), fault.Corrupted, "artefact"},
		"NaN":            {edit(func(m map[string]any) { m["model"].(map[string]any)["out_width"] = "NaN" }), fault.Corrupted, "artefact"},
		"foreign":        {[]byte(`{"format":"a model of something","version":1}`), fault.Invalid, "format"},
		"newer":          {edit(func(m map[string]any) { m["version"] = 2 }), fault.VersionUnsupported, "version"},
		"unknown key":    {edit(func(m map[string]any) { m["extra"] = 1 }), fault.Corrupted, "artefact"},
		"missing arm":    {edit(func(m map[string]any) { m["arms"] = m["arms"].([]any)[1:] }), fault.Invalid, "arms"},
		"other arm":      {edit(func(m map[string]any) { m["arms"].([]any)[3] = "zip-9" }), fault.Invalid, "arms"},
		"other sizes":    {edit(func(m map[string]any) { m["sizes"].([]any)[0] = 1000 }), fault.Invalid, "sizes"},
		"no profiles":    {edit(func(m map[string]any) { m["profiles"] = []any{} }), fault.Invalid, "profiles"},
		"no weight":      {edit(func(m map[string]any) { profile(m)["weight"] = 0 }), fault.Invalid, "profiles.weight"},
		"few costs":      {edit(func(m map[string]any) { profile(m)["costs"] = []any{} }), fault.Invalid, "profiles.costs"},
		"absurd cost":    {edit(func(m map[string]any) { profile(m)["costs"].([]any)[0].([]any)[0].([]any)[0] = 1e6 }), fault.Invalid, "profiles.costs"},
		"no width":       {edit(func(m map[string]any) { m["model"].(map[string]any)["out_width"] = 0 }), fault.Invalid, "model.out_width"},
		"zero reference": {edit(func(m map[string]any) { m["reference_ns"] = []any{0, 1} }), fault.Invalid, "reference_ns"},
	} {
		a, err := Parse(tt.b)
		var f *fault.Error
		if a != nil || !errors.As(err, &f) || !errors.Is(err, tt.code) || !strings.Contains(err.Error(), tt.field) {
			t.Errorf("%s: %v, want %s naming %s", name, err, tt.code, tt.field)
		}
		if used, err := Load(tt.b); used != Embedded() || err == nil {
			t.Errorf("%s: Load did not fall back with a reason", name)
		}
	}
	if a, err := Load(embedded); err != nil || a.Hash() != Embedded().Hash() {
		t.Errorf("Load of a good artefact: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(embedded)
	f.Add(embedded[:300])
	f.Add([]byte(`{"format":"portask-adaptive-policy","version":1,"profiles":[{"weight":1}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := Parse(b)
		if err != nil {
			return
		}
		// Whatever is accepted decides, and with finite costs.
		d := New(a, Options{})
		x := d.DecideFrom(4096, Features{})
		d.Observe(x.Token, 4096, 1000, 1e4, 1e3)
		for _, v := range d.Explain(4096).Arms {
			if math.IsNaN(v.Cost) || math.IsInf(v.Cost, 0) || v.Cost < 0 {
				t.Fatalf("%s costs %v", v.Arm, v.Cost)
			}
		}
	})
}

// testArtefact has a single profile and does not change when the policy is
// trained anew.
//
//go:embed testdata/artefact.json
var testArtefact []byte
