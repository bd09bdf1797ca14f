package config

import (
	"strconv"
	"strings"

	"github.com/portask/portask/broker/fault"
)

// Layer is where a value came from.
type Layer uint8

// The layers; a later one wins.
const (
	LayerDefault Layer = iota
	LayerFile
	LayerEnv
	LayerFlag
)

// Origin is where exactly.
type Origin struct {
	Layer Layer
	// Name of the file, the variable or the flag as typed; empty for defaults.
	Name string
	// Line of the file, from 1; 0 where there is none.
	Line int
}

// String returns "default", "broker.yaml:12", "$PORTASK_NODE_ID" or "--node-id".
func (o Origin) String() string {
	switch o.Layer {
	case LayerDefault:
		return "default"
	case LayerEnv:
		return "$" + o.Name
	}
	if o.Line > 0 {
		return o.Name + ":" + strconv.Itoa(o.Line)
	}
	return o.Name
}

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	Origin Origin
	// Key as it was written; empty if the trouble is the file itself.
	Key string
	// Text says what is wrong and what is wanted.
	Text string
	// Nearest known name, for an unknown one.
	Nearest string
}

// String returns "broker.yaml:12: network.lisen: unknown key; did you mean
// network.listen?".
func (p Problem) String() string {
	var b strings.Builder
	if p.Origin.Layer != LayerDefault {
		b.WriteString(p.Origin.String())
		b.WriteString(": ")
	}
	if p.Key != "" && p.Key != p.Origin.Name {
		b.WriteString(p.Key)
		b.WriteString(": ")
	}
	b.WriteString(p.Text)
	if p.Nearest != "" {
		b.WriteString("; did you mean ")
		b.WriteString(p.Nearest)
		b.WriteByte('?')
	}
	return b.String()
}

// Error is everything that is wrong with a configuration: at least one Problem,
// in the order of the layers, within the file by line. It is a fault.Invalid of
// the category configuration.
type Error struct{ Problems []Problem }

// Error returns one problem a line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap makes errors.Is(err, fault.Invalid) hold.
func (e *Error) Unwrap() error {
	return &fault.Error{Code: fault.Invalid, Op: "load configuration", Category: fault.CategoryConfiguration}
}
