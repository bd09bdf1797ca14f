package scenario

import (
	"bytes"
	"fmt"
	"strings"
)

const referenceHead = `# Scenarios

A scenario says what a run of the load generator does: topics, producers and consumers, what is sent, when, and what must
be reached. It is a file of YAML or JSON and says nothing of the deployment; addresses are flags of the command. This page
is made from the table by which files are read (` + "`loadgen scenarios --reference`" + `).

` + "```" + `
loadgen scenarios                       # those that are shipped, with one line each
loadgen validate my.yaml                # every problem at once, with its line
loadgen run my.yaml                     # or the name of a shipped one
loadgen run steady --set phases.*.rate=2000 --set producers.count=4
` + "```" + `

` + "`--set path=value`" + ` changes a setting; an item of a list is named by its number from 0, by its name, or ` + "`*`" + ` for all that take
the setting. A setting that has no meaning beside the others is an error, as is one that does not exist. Durations carry
a unit (500ms, 30s, 5m, 1h), sizes may (1024, 64KiB, 1MiB). YAML's anchors and aliases are not supported. Paths are
relative to the scenario's file. A file begins with its version:

` + "```yaml" + `
version: 1
topics:
  - {name: orders, partitions: 4}
phases:
  - {name: warm-up, duration: 2s, measured: false, rate: 5000}
  - {name: main, duration: 30s, arrival: poisson, rate: 5000}
objectives:
  - {metric: e2e_p99, at_most: 20ms}
` + "```" + `

The result keeps the resolved scenario, every setting with its value, and its hash.
`

const referenceTail = `
## Arrival

All arrivals are rates over time. With ` + "`spacing: even`" + ` message k is due when the integral of the rate reaches k; with
` + "`spacing: poisson`" + ` the integral between messages is exponentially distributed, as with many independent senders. Phases
follow one another without a gap.

| arrival | rate at time t of the phase |
| --- | --- |
| constant | rate |
| poisson | rate, spaced at random |
| bursts | rate for on, base for off, in turn |
| sine | rate + amplitude · sin(2π t / period) |
| ramp | from rate to to, in a straight line |
| staircase | from rate to to, in steps levels of the same length |
| trace | as recorded, speed times as fast |

## Faults

Faults of the network happen in a proxy on the loopback interface, which the clients are given as the target's address;
those of the process need a target that loadgen started (` + "`--start-broker`" + `). Everything is verified across them. A
partition has recovered when, after the fault's end, a message of each producer is delivered within ` + "`limits.on_time`" + `; the
result tells how long that took for the last of them, and what became of the messages sent until then, which are left out
of the phases' latencies.

| kind | what happens |
| --- | --- |
| slow-network | what passes takes latency, and jitter, longer, and has rate bytes a second |
| partition | nothing passes, and connections are not opened; then what was held up goes on |
| half-open | connections fall silent for good, as when a router forgot them; new ones work; at the end the silent ones are reset |
| reset | all connections are reset, and new ones are while it lasts |
| freeze | the process is stopped (SIGSTOP), then continued |
| kill | the process is killed (SIGKILL), then started again on the same data |
| restart | the process is asked to end (SIGTERM), then started again |
| slow-consumer | consumers take nothing |

## Connections

A scenario of kind connections sends nothing. It opens plain connections from 127.0.0.2 and up in one epoll loop, which
spends a descriptor and some 20 bytes on each, has each subscribe the topic at its end, answers heartbeats, and reads the
resident memory of the target's process at several numbers of connections, when it has come to rest. What one connection
costs is the slope of the line through these points. It takes Linux, and a target on this machine for its memory.
` + "`loadgen conns N`" + ` is the same without a file. Where the limits of the system do not allow N, nothing is opened, and what is
needed is said: descriptors of both processes and of the machine, tracked connections, ports.

## Payloads

A value is a header of 48 bytes, by which it is recognised, and a body from the source; with a codec other than raw both
are encoded as one document. The same seed gives the same values, and every byte of what arrives is compared. With every
result stands what was sent: sizes, the entropy of single bytes, and the ratios at which zstd level 1 compresses batches of
these values and each value by itself, from samples of whole batches spread over the run. A broker that compresses is
measured by what it is given. ` + "`entropy:0.3`" + ` is a dial: 30 % of each KiB are random bytes and the rest zeros, so that 0 is all
but nothing and 1 cannot be compressed.

## Traces

A trace is a text file of one message a line: the time in nanoseconds since the trace's beginning, never decreasing, the
size of the value in bytes, and a hash of the key (hexadecimal, 0: no key), separated by commas. Lines that begin with #
are comments. The first line names the format. Sizes below the header's are raised to it; a key's hash becomes the key.
A fourth number may say the topic, from 1, which is the scenario's of that place. The traces of loadgen record
(docs/record.md) say the same in binary.
At most 10,000,000 messages are read. A trace that is shorter than its phase ends sending early; what is due after the
phase's end is left out.

` + "```" + `
#portask-trace 1
0,1024,0
153000,220,9f86d081884c7d65
` + "```" + `
`

// Reference is docs/scenarios.md: the table of settings, for people.
func Reference() []byte {
	var b bytes.Buffer
	b.WriteString(referenceHead)
	s := Default()
	s.Objectives = []Objective{{}}
	s.Faults = []Fault{defaultFault()}
	referenceTable(&b, "", s.table())
	b.WriteString(referenceTail)
	return b.Bytes()
}

func referenceTable(b *bytes.Buffer, path string, table []entry) {
	title := "Settings"
	if path != "" {
		title = "`" + path + "`"
	}
	fmt.Fprintf(b, "\n## %s\n\n", title)
	fmt.Fprintf(b, "| setting | takes | default | meaning |\n| --- | --- | --- | --- |\n")
	for _, e := range table {
		takes, def := "a table, see below", ""
		switch {
		case e.list != nil:
			takes = fmt.Sprintf("a list of tables, at most %d, see below", e.list.max)
		case e.v != nil:
			takes, def = e.v.want(), e.v.text()
		}
		if def != "" {
			def = "`" + def + "`"
		}
		doc := e.doc
		if e.when != "" {
			doc += " Only with " + e.when + "."
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", e.name, strings.ReplaceAll(takes, "|", "\\|"), def, strings.ReplaceAll(doc, "|", "\\|"))
	}
	for _, e := range table {
		switch {
		case e.table != nil:
			referenceTable(b, path+e.name, e.table)
		case e.list != nil:
			referenceTable(b, path+e.name+"[]", e.list.at(0))
		}
	}
}
