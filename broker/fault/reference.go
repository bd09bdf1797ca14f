package fault

import (
	"fmt"
	"strings"
)

// Reference returns the page of all codes in Markdown, as docs/errors.md has it.
func Reference() string {
	var b strings.Builder
	b.WriteString(`# Errors

Generated from the table in broker/fault; a test compares the two.

Every failure has a code. The number travels in the protocol's ERROR frames, the name stands in messages, logs and
metrics; neither changes its meaning. Beside the code a failure says what was tried, which field was at fault, the limit
and the value that broke it, and what caused it.

*Retry* says whether the same request may succeed when it is sent again unchanged: later, or also at another node.
*Leaves* says what is gone after the failure: the handle (a producer or subscription, to be opened anew) or the whole
connection. *HTTP* is the status of an answer over HTTP, *exit* the exit code of a command.

`)
	category := func(c Category) {
		rows := 0
		for _, code := range Codes() {
			i := code.Info()
			if i.Category != c {
				continue
			}
			if rows++; rows == 1 {
				fmt.Fprintf(&b, "## %s%s\n\n| code | name | retry | leaves | HTTP | exit | cause and remedy |\n| --- | --- | --- | --- | --- | --- | --- |\n",
					strings.ToUpper(c.String()[:1]), c.String()[1:])
			}
			retry := "no"
			switch {
			case i.Retryable && i.RetryElsewhere:
				retry = "later, elsewhere"
			case i.Retryable:
				retry = "later"
			case i.RetryElsewhere:
				retry = "elsewhere"
			}
			leaves := "all"
			switch {
			case i.ClosesConnection:
				leaves = "no connection"
			case i.ClosesHandle:
				leaves = "no handle"
			}
			fmt.Fprintf(&b, "| %d | `%s` | %s | %s | %d | %d | %s |\n", code, i.Name, retry, leaves, i.HTTP, i.Exit, i.Text)
		}
		if rows > 0 {
			b.WriteByte('\n')
		}
	}
	for c := CategoryMessage; int(c) < len(categoryNames); c++ {
		category(c)
	}
	b.WriteString(`The category is where a code usually belongs; a failure may name another, as a value that does not decode names
serialization.

## Exit codes of commands

| exit | meaning |
| --- | --- |
`)
	for _, e := range Exits() {
		fmt.Fprintf(&b, "| %d | %s |\n", e, e)
	}
	return b.String()
}
