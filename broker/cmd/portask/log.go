package main

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/storage/disklog"
	"github.com/portask/portask/broker/topic"
)

func newLog(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "log",
		Short: "Look into a data directory, offline",
		Long: `Look into the data directory of a stopped broker. The directory is locked meanwhile; one that a broker uses is refused.

A log is one partition, named by its topic's id and its index.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newLogDump(g), newLogVerify(g), newLogRepair(g))
	return cmd
}

// catalogue is what makes logs topics.
func catalogue() *disklog.Catalogue {
	return &disklog.Catalogue{Name: topic.MetaName, Check: topic.Check, Rebuild: topic.Rebuild}
}

// logFilter reads --log flags; none is no filter.
func logFilter(names []string) (disklog.Filter, error) {
	if len(names) == 0 {
		return nil, nil
	}
	wanted := make(map[storage.PartitionID]bool, len(names))
	for _, s := range names {
		id, err := storage.ParsePartitionID(s)
		if err != nil {
			return nil, usageError{fmt.Errorf("--log: %w", err)}
		}
		wanted[id] = true
	}
	return func(id storage.PartitionID) bool { return wanted[id] }, nil
}

// problemReport is one problem in the output.
type problemReport struct {
	Class  string `json:"class"`
	Damage bool   `json:"damage"`
	File   string `json:"file"`
	Pos    int64  `json:"position"`
	Bytes  int64  `json:"bytes"`
	From   int64  `json:"from"` // messages [from, next) are lost; none if equal
	Next   int64  `json:"next"`
	Detail string `json:"detail,omitempty"`
}

func reportProblem(p *disklog.Problem) problemReport {
	return problemReport{
		Class: p.Class.String(), Damage: p.Class.Damage(), File: p.File, Pos: p.Pos, Bytes: p.Len,
		From: int64(p.From), Next: int64(p.Next), Detail: p.Detail,
	}
}

type verifyReport struct {
	Logs     int             `json:"logs"`
	Segments int             `json:"segments"`
	Batches  int             `json:"batches"`
	Messages int64           `json:"messages"`
	Bytes    int64           `json:"bytes"`
	Problems []problemReport `json:"problems"`
	More     int             `json:"more_problems,omitempty"`
	Damaged  bool            `json:"damaged"`
}

func reportVerify(r *disklog.Report) verifyReport {
	v := verifyReport{
		Logs: r.Logs, Segments: r.Segments, Batches: r.Batches, Messages: r.Messages, Bytes: r.Bytes,
		More: r.More, Damaged: r.Damaged(), Problems: []problemReport{},
	}
	for i := range r.Problems {
		v.Problems = append(v.Problems, reportProblem(&r.Problems[i]))
	}
	return v
}

// printReport prints what a directory holds and what is wrong with it.
func (g *globals) printReport(w io.Writer, r *disklog.Report) error {
	if g.output == "json" {
		return g.print(w, reportVerify(r), nil, nil)
	}
	if err := g.print(w, nil, nil, [][]string{
		{"logs", strconv.Itoa(r.Logs)},
		{"segments", strconv.Itoa(r.Segments)},
		{"batches", strconv.Itoa(r.Batches)},
		{"messages", strconv.FormatInt(r.Messages, 10)},
		{"bytes", strconv.FormatInt(r.Bytes, 10)},
	}); err != nil {
		return err
	}
	for _, p := range r.Problems {
		word := "note"
		if p.Class.Damage() {
			word = "DAMAGE"
		}
		if _, err := fmt.Fprintf(w, "%s %s\n", word, p); err != nil {
			return err
		}
	}
	if r.More > 0 {
		if _, err := fmt.Fprintf(w, "and %d problems more\n", r.More); err != nil {
			return err
		}
	}
	if !r.Damaged() {
		_, err := fmt.Fprintln(w, "ok: every checksum holds")
		return err
	}
	return nil
}

func newLogVerify(g *globals) *cobra.Command {
	var logs []string
	cmd := &cobra.Command{
		Use:   "verify DIR",
		Short: "Read every byte and report what is damaged; changes nothing",
		Long: `Read every byte of a data directory, check every checksum, and report each problem with file, position and the messages
concerned, and logs without a catalogue of topics. Nothing is changed. The exit code is 10 if there is damage; the traces of a crash (a torn tail) are noted and
are no damage.`,
		Args: exactArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := logFilter(logs)
			if err != nil {
				return err
			}
			r, err := disklog.Verify(vfs.OS(), args[0], filter, catalogue())
			if err != nil {
				return err
			}
			if err := g.printReport(cmd.OutOrStdout(), &r); err != nil {
				return err
			}
			return damaged("verify "+args[0], &r)
		},
	}
	cmd.Flags().StringArrayVar(&logs, "log", nil, "these logs only; may be repeated")
	return cmd
}

// damaged is the error of a command that found damage; nil if there is none.
func damaged(op string, r *disklog.Report) error {
	if !r.Damaged() {
		return nil
	}
	n := r.More
	for i := range r.Problems {
		if r.Problems[i].Class.Damage() {
			n++
		}
	}
	return fault.New(fault.Corrupted, op).WithDetail("%d places are damaged", n)
}

func newLogRepair(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "repair DIR OUT",
		Short: "Copy what is good of a data directory to a new one",
		Long: `Copy every valid batch, with its offset, and all valid metadata of a data directory to OUT, which must not exist. What
is damaged goes to OUT/quarantine; messages that are lost become gaps that the new logs know of. DIR is not changed.

If the catalogue of topics is missing or damaged, OUT gets one made from the logs: topics keep their names where those
can still be read, others are called recovered-<id>, and retention is unlimited until it is set again.

Each problem is printed as it is dealt with. A broker started on OUT serves what could be saved. The exit code is 0 also
if something was lost: that is what the command is for. If the command fails, no broker starts on OUT: delete it.`,
		Args: exactArgs("DIR", "OUT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := disklog.Repair(vfs.OS(), args[0], args[1], catalogue(), nil)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if g.output == "json" {
				return g.print(out, reportVerify(&r), nil, nil)
			}
			for _, p := range r.Problems {
				fmt.Fprintln(out, p)
			}
			_, err = fmt.Fprintf(out, "%d logs, %d messages in %d batches copied to %s; %d problems\n", r.Logs, r.Messages, r.Batches, args[1], len(r.Problems)+r.More)
			return err
		},
	}
}
