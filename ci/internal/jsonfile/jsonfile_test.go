package jsonfile

import (
	"strings"
	"testing"
)

func TestErrorsNameTheLine(t *testing.T) {
	type inner struct {
		Limit float64 `json:"limit"`
	}
	for text, want := range map[string]string{
		"":                         "line 1: unexpected end",
		"{\n  \"figures\": [\n":    "line 2: unexpected end",
		"{\n  \"a\": 1,\n  b\n}\n": "line 3: invalid character 'b'",
		"{\n\"figures\": [\n{\"limit\": 1},\n{\"limit\": \"x\"}\n]}\n": "line 4: ",
		"[]": "line 1: ",
	} {
		var v struct {
			A       int     `json:"a"`
			Figures []inner `json:"figures"`
		}
		if err := Unmarshal([]byte(text), &v); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	var v struct{ Figures []inner }
	err := Unmarshal([]byte("{\"figures\": [{\"limit\": \"x\"}]}"), &v)
	if err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("the field is not named: %v", err)
	}
	if err := Unmarshal([]byte("{\"figures\": [{\"limit\": 2}]}"), &v); err != nil || v.Figures[0].Limit != 2 {
		t.Errorf("%+v, %v", v, err)
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte("{\n\"a\": [1, {\"b\": null}],\n}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var v map[string]int
		if err := Unmarshal(data, &v); err != nil && !strings.HasPrefix(err.Error(), "line ") {
			t.Errorf("%q: %v", data, err)
		}
	})
}
