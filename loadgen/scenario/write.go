package scenario

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// YAML writes the resolved scenario: every setting that has a meaning, with its
// value. Parse reads it back.
func (s *Scenario) YAML() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "version: %d\n", Version)
	writeTable(&b, s.table(), "", "")
	return b.Bytes()
}

// writeTable writes entries, the first line with the indent first, which a
// list's dash is in.
func writeTable(b *bytes.Buffer, table []entry, first, indent string) {
	for _, e := range table {
		switch {
		case e.only != nil && !e.only():
			continue
		case e.table != nil:
			fmt.Fprintf(b, "%s%s:\n", first, e.name)
			writeTable(b, e.table, indent+"  ", indent+"  ")
		case e.list != nil:
			if e.list.len() == 0 {
				fmt.Fprintf(b, "%s%s: []\n", first, e.name)
				break
			}
			fmt.Fprintf(b, "%s%s:\n", first, e.name)
			for i := range e.list.len() {
				writeTable(b, e.list.at(i), indent+"  - ", indent+"    ")
			}
		default:
			fmt.Fprintf(b, "%s%s: %s\n", first, e.name, scalar(e.v))
		}
		first = indent
	}
}

var plain = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_./-]*$`)

// scalar quotes what YAML might take for something else.
func scalar(v value) string {
	s := v.text()
	switch v.(type) {
	case intValue, uintValue, floatValue, boolValue, durationValue, sizeValue:
		return s
	}
	switch strings.ToLower(s) {
	case "y", "n", "yes", "no", "on", "off", "true", "false", "null":
		return strconv.Quote(s)
	}
	if plain.MatchString(s) {
		return s
	}
	return strconv.Quote(s)
}
