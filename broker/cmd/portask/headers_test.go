package main

import (
	"testing"

	"github.com/portask/portask/broker/message"
)

func TestParseHeaders(t *testing.T) {
	h, err := parseHeaders([]string{"a=1", "b:=0042", "c:=1.50", "d:=true", "e:=2026-01-02T03:04:05.60+01:00", "a=", "f=x=y", "g:h=:=", "n:=-7", "i:=Inf"})
	if err != nil {
		t.Fatal(err)
	}
	want := message.Headers{}
	for _, x := range [][2]string{{"a", "1"}, {"b", "42"}, {"c", "1.5"}, {"d", "true"}, {"e", "2026-01-02T03:04:05.6+01:00"}, {"a", ""}, {"f", "x=y"}, {"g:h", ":="}, {"n", "-7"}, {"i", "Inf"}} {
		want = append(want, message.Header{Key: x[0], Value: []byte(x[1])})
	}
	if len(h) != len(want) {
		t.Fatalf("%s, want %s", h, want)
	}
	for i := range want {
		if h[i].Key != want[i].Key || string(h[i].Value) != string(want[i].Value) {
			t.Errorf("header %d is %s=%s, want %s=%s", i, h[i].Key, h[i].Value, want[i].Key, want[i].Value)
		}
	}
	for _, bad := range []string{"", "a", "=x", ":=1", "a:=x", "a:=", "a:=True", "a:=2026-01-02"} {
		if h, err := parseHeaders([]string{bad}); exitCode(err) != exitUsage {
			t.Errorf("%q: %s, %v", bad, h, err)
		}
	}
}

func TestConditions(t *testing.T) {
	var m message.Message
	m.Headers.SetInt("n", 9007199254740993) // a float would round it
	m.Headers.SetFloat("f", 2.5)
	m.Headers.SetBool("b", false)
	m.Headers.SetText("s", "müller")
	m.Headers.SetText("t", "2026-01-02T03:00:00+01:00")
	m.Headers.SetText("nan", "NaN")
	m.Headers.SetText("empty", "")
	for text, want := range map[string]bool{
		"n": true, "x": false, "!x": true, "!n": false, "empty": true,
		"n=9007199254740993": true, "n=9007199254740992": false, "n>9007199254740992": true, "n>=9007199254740994": false, "n<9007199254740994": true, "n!=9007199254740993": false,
		"f=2.5": true, "f>2": true, "f<3": true, "f<=2": false, "f>=2.6": false, "f=two": false, "f!=two": true, "n>2.5": true,
		"b=false": true, "b=true": false, "b!=true": true, "s=true": false, "s!=true": true,
		"s=müller": true, "s<n": true, "s>n": false, "s=": false, "empty=": true, "s>=müller": true,
		"t=2026-01-02T02:00:00Z": true, "t<2026-01-02T02:00:00.000001Z": true, "t>2026-01-02T02:00:00Z": false, "s<2026-01-02T02:00:00Z": false,
		"x=1": false, "x!=1": true, "x<1": false, "x>=text": false, "s>5": false, "s<5": false,
		"nan=NaN": false, "nan<1": false, "nan>1": false, "nan>1.5": false, "nan!=1": true, "f=NaN": false,
	} {
		c, err := parseConditions([]string{text})
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := c.hold(&m); got != want {
			t.Errorf("%q is %t, want %t", text, got, want)
		}
	}
	both, err := parseConditions([]string{"n>5", "f<2"})
	if err != nil || both.hold(&m) || !(conditions{}).hold(&m) {
		t.Errorf("n>5 and f<2 hold, or nothing does not; %v", err)
	}
	for _, bad := range []string{"", "!", "=1", "<1", "!a=1", "b<true", "b>=false", "!!a"} {
		if c, err := parseConditions([]string{bad}); exitCode(err) != exitUsage {
			t.Errorf("%q: %+v, %v", bad, c, err)
		}
	}
}
