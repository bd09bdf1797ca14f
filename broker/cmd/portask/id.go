package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message/id"
)

// idFlags are those of `portask id`.
type idFlags struct {
	kind  string
	count int
	node  int
}

func newID(g *globals) *cobra.Command {
	var o idFlags
	cmd := &cobra.Command{
		Use:   "id [ID...]",
		Short: "Make identifiers, or tell when one was made",
		Long: `Without arguments print new identifiers, one a line; with identifiers print what is in them.

  ulid     26 characters, 48 bits of time and 80 random ones: of messages and topics
  short    8 characters, random: tells clients apart in logs; there is nothing in it
  numeric  63 bits as a number: time, --node and a sequence`,
		Args: func(*cobra.Command, []string) error { return nil },
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return g.explainIDs(cmd.OutOrStdout(), args)
			}
			return o.make(cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.kind, "kind", "ulid", "ulid, short or numeric")
	f.IntVarP(&o.count, "count", "n", 1, "how many")
	f.IntVar(&o.node, "node", 0, fmt.Sprintf("node of numeric ones, 0 to %d", id.NodesMax-1))
	return cmd
}

// make prints new identifiers.
func (o *idFlags) make(w io.Writer) error {
	if o.count < 1 || o.count > 1_000_000 {
		return usagef("--count %d: want 1 to 1000000", o.count)
	}
	var next func(dst []byte) []byte
	switch o.kind {
	case "ulid":
		g := id.NewGenerator()
		next = func(dst []byte) []byte { return append(dst, g.New().String()...) }
	case "short":
		next = func(dst []byte) []byte { return id.NewShort().Append(dst) }
	case "numeric":
		g, err := id.NewNumericGenerator(o.node)
		if err != nil {
			return usagef("--node %d: want 0 to %d", o.node, id.NodesMax-1)
		}
		next = func(dst []byte) []byte { return strconv.AppendInt(dst, int64(g.New()), 10) }
	default:
		return usagef("--kind %q: want ulid, short or numeric", o.kind)
	}
	var out []byte
	for range o.count {
		out = append(next(out), '\n')
	}
	_, err := w.Write(out)
	return err
}

// idRow is what is in an identifier.
type idRow struct {
	ID       string `json:"id"`
	Kind     string `json:"kind"`
	Time     string `json:"time,omitempty"`
	Node     *int   `json:"node,omitempty"`
	Sequence *int   `json:"sequence,omitempty"`
	Random   string `json:"random,omitempty"`
}

func (g *globals) explainIDs(w io.Writer, args []string) error {
	var all []idRow
	var rows [][]string
	for _, text := range args {
		r, err := explainID(text)
		if err != nil {
			return err
		}
		all = append(all, r)
		rest := r.Random
		if r.Node != nil {
			rest = fmt.Sprintf("node %d, sequence %d", *r.Node, *r.Sequence)
		}
		rows = append(rows, []string{r.ID, r.Kind, r.Time, rest})
	}
	return g.print(w, all, []string{"ID", "KIND", "TIME", "REST"}, rows)
}

func explainID(text string) (idRow, error) {
	if u, err := ulid.ParseStrict(text); err == nil {
		return idRow{ID: text, Kind: "ulid", Time: u.Timestamp().UTC().Format(time.RFC3339Nano), Random: hex.EncodeToString(u.Entropy())}, nil
	}
	// Eight digits are a short identifier: a number of so few would be of the
	// first minute of 2025.
	if s, err := id.ParseShort(text); err == nil {
		return idRow{ID: text, Kind: "short", Random: strconv.FormatUint(uint64(s), 16)}, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
		v := id.Numeric(n)
		node, seq := v.Node(), v.Sequence()
		return idRow{ID: text, Kind: "numeric", Time: v.Time().UTC().Format(time.RFC3339Nano), Node: &node, Sequence: &seq}, nil
	}
	return idRow{}, fault.New(fault.Invalid, "id").WithField("id").WithDetail("%.40q is no ULID, short or numeric identifier", text)
}
