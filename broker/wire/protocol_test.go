package wire

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/broker/fault"
)

// TestProtocolDocument holds PROTOCOL.md and the source together: the boxes are
// those over the encoders, the tables those the code goes by.
func TestProtocolDocument(t *testing.T) {
	boxes := sourceBoxes(t)
	used := map[string]bool{}
	text, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	section := regexp.MustCompile(`(?s)<!-- (box|opcodes|errors|limits)(?: (\w+))? -->\n.*?<!-- end -->`)
	got := section.ReplaceAllStringFunc(string(text), func(old string) string {
		m := section.FindStringSubmatch(old)
		var body string
		switch m[1] {
		case "box":
			if boxes[m[2]] == "" {
				t.Errorf("no box over %s in the source", m[2])
			}
			used[m[2]] = true
			body = "```text\n" + boxes[m[2]] + "```\n"
		case "opcodes":
			body = opcodeTable()
		case "errors":
			body = errorTable()
		case "limits":
			body = limitTable()
		}
		head, _, _ := strings.Cut(old, "\n")
		return head + "\n" + body + "<!-- end -->"
	})
	for name := range boxes {
		if !used[name] {
			t.Errorf("the box over %s is not in PROTOCOL.md", name)
		}
	}
	if *update {
		if err := os.WriteFile("PROTOCOL.md", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if got != string(text) {
		t.Error("PROTOCOL.md is not what the source says: run go test ./wire -update and read the difference")
	}
	for _, c := range fault.Codes() {
		if !strings.Contains(got, "| `"+c.Info().Name+"` |") {
			t.Errorf("%v is not in the error table", c)
		}
	}
}

// sourceBoxes returns the boxes drawn in doc comments by the name declared
// beneath.
func sourceBoxes(t *testing.T) map[string]string {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	boxes := map[string]string{}
	add := func(name string, doc *ast.CommentGroup) {
		if doc == nil || !strings.ContainsRune(doc.Text(), '┌') {
			return
		}
		var b strings.Builder
		for _, line := range strings.Split(doc.Text(), "\n") {
			if box, ok := strings.CutPrefix(line, "\t"); ok {
				b.WriteString(box + "\n")
			} else if line == "" && b.Len() > 0 && !strings.HasSuffix(b.String(), "\n\n") {
				b.WriteString("\n") // between two boxes
			}
		}
		boxes[name] = strings.TrimRight(b.String(), "\n") + "\n"
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.Name != "TLSAlert" { // another protocol's
					add(d.Name.Name, d.Doc)
				}
			case *ast.GenDecl:
				switch s := d.Specs[0].(type) {
				case *ast.TypeSpec:
					add(s.Name.Name, d.Doc)
				case *ast.ValueSpec:
					add(s.Names[0].Name, d.Doc)
				}
			}
		}
	}
	return boxes
}

func opcodeTable() string {
	var b strings.Builder
	b.WriteString("| opcode | | request | from | answer | |\n| --- | --- | --- | --- | --- | --- |\n")
	dash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	for _, i := range opcodes {
		what := "asked and answered"
		switch {
		case i.from == reserved:
			what = "reserved"
		case i.name == "":
			what = "the answer to any request that failed, or unasked"
		case i.answer == "":
			what = "not answered"
		}
		fmt.Fprintf(&b, "| %d | `%04x` | %s | %v | %s | %s |\n", i.op, uint16(i.op), dash(i.name), i.from, dash(i.answer), what)
	}
	return b.String()
}

func errorTable() string {
	var b strings.Builder
	b.WriteString("| code | name | category | retry | closes | |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, c := range fault.Codes() {
		i := c.Info()
		retry, closes := "no", "-"
		switch {
		case i.Retryable && i.RetryElsewhere:
			retry = "yes, elsewhere too"
		case i.Retryable:
			retry = "yes"
		case i.RetryElsewhere:
			retry = "elsewhere"
		}
		switch {
		case i.ClosesConnection:
			closes = "connection"
		case i.ClosesHandle:
			closes = "handle"
		}
		fmt.Fprintf(&b, "| %d | `%s` | %v | %s | %s | %s |\n", c, i.Name, i.Category, retry, closes, i.Text)
	}
	b.WriteString("\nCategories:")
	for c := fault.CategoryMessage; c <= fault.CategorySystem; c++ {
		fmt.Fprintf(&b, " %d %v", c, c)
		if c < fault.CategorySystem {
			b.WriteString(" ·")
		}
	}
	b.WriteString(".\n")
	return b.String()
}

func limitTable() string {
	var b strings.Builder
	b.WriteString("| what | limit |\n| --- | --- |\n")
	row := func(what string, v any) {
		if d, ok := v.(time.Duration); ok {
			v = strings.TrimSuffix(d.String(), "0s") // 10m0s
			if d < time.Minute {
				v = d.String()
			}
		}
		fmt.Fprintf(&b, "| %s | %v |\n", what, v)
	}
	row("frame, by default / least / most that a peer may announce, bytes", fmt.Sprintf("%d / %d / %d", DefaultMaxFrame, MinMaxFrame, MaxMaxFrame))
	row("frame before HELLO_OK, bytes", PreAuthFrameBytes)
	row("everything before HELLO_OK, bytes", PreAuthBytes)
	row("time to HELLO_OK", PreAuthTimeout)
	row("heartbeat interval, default", DefaultHeartbeat)
	row("heartbeat interval, least", MinHeartbeat)
	row("heartbeat interval, most", MaxHeartbeat)
	row("intervals of silence before a peer is dead", HeartbeatMisses)
	row("credit of one grant or one handle, bytes", MaxCreditBytes)
	row("option section, bytes", MaxOptionsBytes)
	row("topics in METADATA and METADATA_OK", MaxTopics)
	row("partitions of a topic", MaxPartitions)
	row("runs in a DELIVER", MaxRuns)
	row("ranges in a DELIVER", MaxRanges)
	row("mechanisms in HELLO_OK", MaxMechanisms)
	row("opcodes in HELLO_OK", MaxOpcodes)
	row("causes in an ERROR", MaxChain)
	row("details in an ERROR", MaxDetails)
	row("compression dictionary, bytes", MaxDictionaryBytes)
	row("dictionaries in a list", MaxDictionaries)
	row("arms in a REPORT", MaxArms)
	row("switches in a REPORT", MaxSwitches)
	row("topic name, bytes", MaxTopicBytes)
	row("client name, node address, field, operation and detail of an error, bytes", MaxNameBytes)
	row("version of a client or broker, bytes", MaxVersionBytes)
	row("cluster id, node id, bytes", MaxIDBytes)
	row("engine name, bytes", MaxEngineBytes)
	row("mechanism name, bytes", MaxMechanismBytes)
	row("message of an error, bytes", MaxTextBytes)
	row("text of a cause, bytes", MaxCauseBytes)
	row("key of a detail, bytes", MaxDetailKeyBytes)
	row("artefact of a report, bytes", MaxArtefactBytes)
	row("note of a report, bytes", MaxNoteBytes)
	return b.String()
}
