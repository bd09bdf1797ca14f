package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"

	"github.com/portask/portask/broker/message"
)

func TestFormat(t *testing.T) {
	full := &record{Topic: "orders", Partition: 3, Message: &message.Message{
		ID: ulid.MustParse("01J8Z0T6M3Q0R9V5B7XKD2W4YC"), Key: []byte("k1"), Value: []byte{'v', 0, 0xff},
		Headers: []message.Header{{Key: "a", Value: []byte("1")}, {Key: "b"}}, Timestamp: 1_700_000_000_123_456, Offset: 42,
	}}
	bare := &record{Topic: "t", Message: &message.Message{}}
	tests := []struct {
		format string
		r      *record
		want   string
	}{
		{"", full, ""},
		{"plain", full, "plain"},
		{`%t-%p-%o\n`, full, "orders-3-42\n"},
		{`%k=%v`, full, "k1=v\x00\xff"},
		{`%v{hex} %v{base64} %k{hex}`, full, "7600ff dgD/ 6b31"},
		{`%T|%u`, full, "2023-11-14T22:13:20.123456Z|1700000000123456"},
		{`%h|%h{hex}`, full, "a=1,b=|a=31,b="},
		{`%i %s`, full, "01J8Z0T6M3Q0R9V5B7XKD2W4YC 3"},
		{`[%i][%k][%v][%h] %s`, bare, "[][][][] 0"},
		{`100%% \\ \t\r\0\x41`, full, "100% \\ \t\r\x00A"},
		{`{%o}`, full, "{42}"},
	}
	for _, tt := range tests {
		f, err := parseFormat(tt.format)
		if err != nil {
			t.Errorf("%q: %v", tt.format, err)
			continue
		}
		if got := string(f.append([]byte("#"), tt.r)); got != "#"+tt.want {
			t.Errorf("%q: got %q, want %q", tt.format, got, tt.want)
		}
	}
}

func TestFormatErrorsNameTheMistake(t *testing.T) {
	for format, want := range map[string]string{
		"%":       "at the end",
		"%q":      "unknown verb %q",
		"%v{":     "no closing brace",
		"%v{rot}": "unknown modifier {rot}",
		"%o{hex}": "%o takes no {hex}",
		`\`:       "at the end",
		`\q`:      `unknown escape \q`,
		`\x4`:     "two hexadecimal digits",
		`\xzz`:    `"zz"`,
	} {
		_, err := parseFormat(format)
		var usage usageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want a usage error with %q", format, err, want)
		}
	}
}

func FuzzParseFormat(f *testing.F) {
	for _, s := range []string{"%v\n", `%t %p %o %k %v %T %h\n`, `%v{hex}%%\x00`, "%{", `\x`} {
		f.Add(s)
	}
	r := &record{Topic: "t", Message: &message.Message{Value: []byte("value")}}
	f.Fuzz(func(t *testing.T, s string) {
		compiled, err := parseFormat(s)
		if err != nil {
			return
		}
		once := string(compiled.append(nil, r))
		if twice := string(compiled.append([]byte(once), r)); twice != once+once {
			t.Fatalf("%q: the second record came out differently", s)
		}
	})
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "17": 17, "17B": 17, "1KiB": 1024, "64MiB": 64 << 20, "3GiB": 3 << 30, "1TiB": 1 << 40,
	} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "x", "-1", "1.5MiB", "1iB", "1K", "2KB", "1X", "KiB", "9999999TiB", "1 KiB"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("%q: accepted as %d", s, got)
		}
	}
}

func TestSizeText(t *testing.T) {
	for n, want := range map[int64]string{-1: "unlimited", 0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 64 << 20: "64.0 MiB", 5 << 40: "5.0 TiB"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestJSONLosesNoByte(t *testing.T) {
	tests := []struct {
		m    message.Message
		want string
	}{
		{message.Message{}, `{"topic":"t","partition":1,"offset":0,"time":"1970-01-01T00:00:00.000000Z"}`},
		{message.Message{Key: []byte{}, Value: []byte("é\n")},
			`{"topic":"t","partition":1,"offset":0,"time":"1970-01-01T00:00:00.000000Z","key":"","value":"é\n"}`},
		{message.Message{Key: []byte{0xff}, Value: []byte{0xc3}, Headers: []message.Header{{Key: "h", Value: []byte("v")}, {Key: "b", Value: []byte{0x80}}}},
			`{"topic":"t","partition":1,"offset":0,"time":"1970-01-01T00:00:00.000000Z","key_base64":"/w==","value_base64":"ww==",` +
				`"headers":[{"key":"h","value":"v"},{"key":"b","value_base64":"gA=="}]}`},
	}
	for _, tt := range tests {
		got, err := appendJSON(nil, &record{Topic: "t", Partition: 1, Message: &tt.m})
		if err != nil || string(got) != tt.want+"\n" {
			t.Errorf("got  %s%v\nwant %s", got, err, tt.want)
		}
	}
}
