package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
)

func newTopicDictionary(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dictionary",
		Short: "Compression dictionaries of a topic: train, add, use, list, get",
		Long: `A dictionary is what the messages of a topic have in common, known to both sides: small batches compressed by zstd are a
third smaller with one, and single messages less than half. The broker keeps a topic's dictionaries, tells producers
which one to use, and hands them to consumers; batches name theirs by an id, so that a topic may change its dictionary
at any time.

Producers use it where they follow the broker and compress with zstd: see portask topic alter --compression.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDictionaryTrain(g), newDictionaryAdd(g), newDictionaryUse(g), newDictionaryList(g), newDictionaryGet(g))
	return cmd
}

// topicTrainFlags are those of `portask topic dictionary train`.
type topicTrainFlags struct {
	from   int
	size   int64
	dryRun bool
	out    string
}

func newDictionaryTrain(g *globals) *cobra.Command {
	o := topicTrainFlags{size: 16 << 10}
	cmd := &cobra.Command{
		Use:   "train TOPIC [FILE...]",
		Short: "Make a dictionary of messages, and give it to the topic",
		Long: `Train a dictionary on messages and make it the one that producers of the topic are advised to use. The messages are the
topic's newest, --from-topic of them, or each line of the files; - is standard input. A quarter of them is held back to
measure what the dictionary does for single messages, which is printed.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("missing argument: TOPIC")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 && cmd.Flags().Changed("from-topic") {
				return usagef("--from-topic: name it or files, not both")
			}
			return o.run(cmd, g, args[0], args[1:])
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.from, "from-topic", 4096, "how many of the topic's newest messages to learn from, if no file is named")
	f.Var(sizeFlag{n: &o.size}, "max-bytes", "largest content of the dictionary")
	f.BoolVar(&o.dryRun, "dry-run", false, "measure, and add nothing")
	f.StringVar(&o.out, "out", "", "write the dictionary to this file as well")
	return cmd
}

// topicTrained is what `train` prints.
type topicTrained struct {
	Topic    string  `json:"topic"`
	ID       string  `json:"id"`
	Bytes    int     `json:"bytes"`
	Samples  int     `json:"samples"`
	Without  float64 `json:"ratio_without"` // of single messages held back
	With     float64 `json:"ratio_with"`
	Added    bool    `json:"added"`
	ActiveID string  `json:"active,omitempty"`
}

func (o *topicTrainFlags) run(cmd *cobra.Command, g *globals, topic string, files []string) error {
	return g.admin(cmd, func(a *client.Admin) error {
		samples, err := o.samples(cmd, g, topic, files)
		if err != nil {
			return err
		}
		learn, held := holdBack(samples)
		b, err := compression.TrainDictionary(learn, compression.TrainOptions{MaxBytes: int(o.size)})
		if err != nil {
			return err
		}
		d, err := compression.ParseDictionary(b)
		if err != nil {
			return err
		}
		r := topicTrained{Topic: topic, ID: dictionaryText(d.ID()), Bytes: len(b), Samples: len(samples)}
		if r.Without, r.With, err = gainOf(d, held); err != nil {
			return err
		}
		if o.out != "" {
			if err := os.WriteFile(o.out, b, 0o644); err != nil {
				return err
			}
		}
		if !o.dryRun {
			ctx, cancel := g.within(cmd.Context())
			defer cancel()
			all, err := a.AddDictionary(ctx, topic, b)
			if err != nil {
				return err
			}
			r.Added, r.ActiveID = true, dictionaryText(all.Active)
		}
		if g.output == "json" {
			return g.print(cmd.OutOrStdout(), r, nil, nil)
		}
		verb := "not added"
		if r.Added {
			verb = "in use for " + topic
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "dictionary %s, %s, of %d messages, %s\nsingle messages by zstd: %.2f : 1 without it, %.2f : 1 with it\n",
			r.ID, sizeText(int64(r.Bytes)), r.Samples, verb, r.Without, r.With)
		return err
	})
}

// trainBytes bounds what is read to learn from: training looks at no more.
const trainBytes = 16 << 20

// samples gathers messages from files or the topic.
func (o *topicTrainFlags) samples(cmd *cobra.Command, g *globals, topic string, files []string) ([][]byte, error) {
	if len(files) == 0 {
		if o.from < 1 {
			return nil, usagef("--from-topic %d: want 1 or more", o.from)
		}
		return newest(cmd.Context(), g, topic, o.from)
	}
	var all [][]byte
	total := 0
	in := &input{files: files, stdin: cmd.InOrStdin(), maxBytes: message.DefaultLimits().MessageBytes}
	err := in.each(func(_ place, _, value []byte) error {
		if total += len(value); total > trainBytes {
			return io.EOF
		}
		all = append(all, append([]byte(nil), value...))
		return nil
	})
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return all, err
}

// newest reads the last n messages of a topic, spread over its partitions.
func newest(ctx context.Context, g *globals, topic string, n int) ([][]byte, error) {
	c, err := g.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := g.within(ctx)
	defer cancel()
	t, err := c.Admin().DescribeTopic(ctx, topic)
	if err != nil {
		return nil, err
	}
	var all [][]byte
	total := 0
	each := max(1, n/len(t.Partitions))
	for _, p := range t.Partitions {
		from := max(p.LogStart, p.HWM-message.Offset(each))
		if from >= p.HWM {
			continue
		}
		k, err := c.Consumer(ctx, topic, client.Partitions(p.Index), client.From(client.At(from)))
		if err != nil {
			return nil, err
		}
		for next := from; next < p.HWM && total < trainBytes; {
			b, err := k.Poll(ctx)
			if gap, ok := errors.AsType[*client.GapError](err); ok {
				next = gap.Next
				continue
			}
			if err != nil {
				return nil, errors.Join(err, k.Close())
			}
			for m, err := range b.Messages() {
				if err == nil && m.Offset < p.HWM && len(m.Value) > 0 {
					all = append(all, append([]byte(nil), m.Value...))
					total += len(m.Value)
				}
			}
			next = b.End
			b.Release()
		}
		if err := k.Close(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// holdBack keeps every fourth sample from the training, and none if they are few.
func holdBack(all [][]byte) (learn, held [][]byte) {
	if len(all) < 2*compression.TrainSamplesMin {
		return all, all
	}
	for i, s := range all {
		if i%4 == 3 {
			held = append(held, s)
		} else {
			learn = append(learn, s)
		}
	}
	return learn, held
}

// gainOf compresses each message by itself, without and with d, and returns the
// ratios.
func gainOf(d *compression.Dictionary, all [][]byte) (without, with float64, err error) {
	var raw, plain, better int
	var buf []byte
	for _, s := range all {
		raw += len(s)
		if buf, err = compression.AppendCompress(buf[:0], s, message.Zstd, compression.LevelFastest); err != nil {
			return 0, 0, err
		}
		plain += min(len(buf), len(s))
		if buf, err = d.AppendCompress(buf[:0], s, compression.LevelFastest); err != nil {
			return 0, 0, err
		}
		better += min(len(buf), len(s))
	}
	return float64(raw) / float64(max(plain, 1)), float64(raw) / float64(max(better, 1)), nil
}

func newDictionaryAdd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "add TOPIC FILE",
		Short: "Give a topic a dictionary in zstd's format",
		Args:  exactArgs("TOPIC", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := readDictionary(args[1])
			if err != nil {
				return err
			}
			return g.dictionaries(cmd, func(ctx context.Context, a *client.Admin) (client.Dictionaries, error) {
				return a.AddDictionary(ctx, args[0], d.Bytes())
			})
		},
	}
}

func newDictionaryUse(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "use TOPIC ID|none",
		Short: "Advise producers to use another dictionary of the topic, or none",
		Args:  exactArgs("TOPIC", "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var id uint32
			if args[1] != "none" {
				var err error
				if id, err = parseDictionaryID(args[1]); err != nil {
					return err
				}
			}
			return g.dictionaries(cmd, func(ctx context.Context, a *client.Admin) (client.Dictionaries, error) {
				return a.UseDictionary(ctx, args[0], id)
			})
		},
	}
}

func newDictionaryList(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "list TOPIC",
		Short: "List the dictionaries of a topic",
		Args:  exactArgs("TOPIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.dictionaries(cmd, func(ctx context.Context, a *client.Admin) (client.Dictionaries, error) {
				return a.ListDictionaries(ctx, args[0])
			})
		},
	}
}

func newDictionaryGet(g *globals) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "get TOPIC ID",
		Short: "Write a dictionary to standard output, or a file",
		Args:  exactArgs("TOPIC", "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseDictionaryID(args[1])
			if err != nil {
				return err
			}
			return g.admin(cmd, func(a *client.Admin) error {
				ctx, cancel := g.within(cmd.Context())
				defer cancel()
				b, err := a.Dictionary(ctx, args[0], id)
				if err != nil {
					return err
				}
				if out != "" {
					return os.WriteFile(out, b, 0o644)
				}
				_, err = cmd.OutOrStdout().Write(b)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "write it to this file")
	return cmd
}

// dictionaryReport is one dictionary in the output of the commands.
type dictionaryReport struct {
	ID     string `json:"id"`
	Bytes  uint32 `json:"bytes"`
	Added  string `json:"added"`
	Active bool   `json:"active"`
}

// dictionaries runs f and prints its result.
func (g *globals) dictionaries(cmd *cobra.Command, f func(context.Context, *client.Admin) (client.Dictionaries, error)) error {
	return g.admin(cmd, func(a *client.Admin) error {
		ctx, cancel := g.within(cmd.Context())
		defer cancel()
		all, err := f(ctx, a)
		if err != nil {
			return err
		}
		reports := make([]dictionaryReport, 0, len(all.All))
		var rows [][]string
		for _, d := range all.All {
			r := dictionaryReport{ID: dictionaryText(d.ID), Bytes: d.Bytes, Added: time.UnixMicro(d.AddedUs).UTC().Format(timeLayout), Active: d.ID == all.Active}
			reports = append(reports, r)
			use := ""
			if r.Active {
				use = "active"
			}
			rows = append(rows, []string{r.ID, sizeText(int64(r.Bytes)), r.Added, use})
		}
		return g.print(cmd.OutOrStdout(), reports, []string{"ID", "SIZE", "ADDED", "USE"}, rows)
	})
}

// dictionaryText is how the id of a dictionary is written: as in batches, 8 hex digits.
func dictionaryText(id uint32) string { return fmt.Sprintf("%08x", id) }

func parseDictionaryID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 16, 32)
	if err != nil || n == 0 {
		return 0, usagef("%q is no id of a dictionary: want up to 8 hex digits, not 0; see portask topic dictionary list", s)
	}
	return uint32(n), nil
}
