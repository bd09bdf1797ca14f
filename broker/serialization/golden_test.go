package serialization

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/portask/portask/broker/message"
)

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// The examples in FORMAT.md are what the codecs write and read.
func TestGolden(t *testing.T) {
	page, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range codecs(t) {
		_, block, ok := strings.Cut(string(page), "```"+c.Encoding().String()+"\n")
		block, _, end := strings.Cut(block, "```")
		if !ok || !end {
			t.Fatalf("FORMAT.md has no block %q", c.Encoding())
		}
		want := []byte(strings.TrimSpace(block))
		if c.Encoding() != message.JSON {
			var digits strings.Builder
			for line := range strings.Lines(block) {
				digits.WriteString(strings.TrimSpace(strings.SplitN(line, ";", 2)[0]))
				digits.WriteByte(' ')
			}
			want = unhex(t, digits.String())
		}
		m := sample()
		got, err := c.AppendMessage(nil, &m)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%v: FORMAT.md has\n%x\nthe codec writes\n%x\n%s", c.Encoding(), want, got, got)
		}
		var back message.Message
		if rest, err := c.DecodeMessage(want, &back); err != nil || len(rest) != 0 || !same(&back, &m) {
			t.Errorf("%v: read %+v, %v", c.Encoding(), back, err)
		}
	}
}
