package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// compressTrainFlags are those of `portask compress train`.
type compressTrainFlags struct {
	out       string
	overwrite bool
	split     string
	size      int64
	maxBytes  int64
	limit     int64
	id        uint32
}

// compressTrained is what `portask compress train` says.
type compressTrained struct {
	File     string  `json:"file"`
	ID       string  `json:"id"`
	Bytes    int     `json:"bytes"`
	Samples  int     `json:"samples"`
	Held     int     `json:"samples_held_back"`
	Ratio    float64 `json:"ratio"`
	Without  float64 `json:"ratio_without"`
	Smallest float64 `json:"ratio_smallest"`
}

func newCompressTrain(g *globals) *cobra.Command {
	o := compressTrainFlags{size: 1 << 10, maxBytes: 16 << 10, limit: 64 << 20}
	cmd := &cobra.Command{
		Use:   "train FILE... --out DICTIONARY",
		Short: "Make a zstd dictionary from samples",
		Long: `Make a zstd dictionary from samples of what you send: each line is one, with --split size each piece of --size, with
--split files each file. It helps where batches stay small, a few KiB or less. At least 16 samples are needed, a few
hundred are good, more than 4 MiB of them change nothing.

The ratios printed are those of every eighth sample, which is kept out of the training for it. The same samples give the
same dictionary and the same id. "-" is stdin.`,
		Args: filesArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := o.run(args, cmd.InOrStdin())
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), t, nil, [][]string{
				{"dictionary", t.File}, {"id", t.ID}, {"size", sizeText(int64(t.Bytes))},
				{"trained on", strconv.Itoa(t.Samples) + " samples"}, {"measured on", strconv.Itoa(t.Held) + " others"},
				{"ratio", fmt.Sprintf("%.2f, smallest level %.2f", t.Ratio, t.Smallest)}, {"without", fmt.Sprintf("%.2f", t.Without)},
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.out, "out", "", "`FILE` to write")
	f.BoolVar(&o.overwrite, "overwrite", false, "replace the file if it exists")
	f.StringVar(&o.split, "split", "lines", "what a sample is: lines, size or files")
	f.Var(sizeFlag{n: &o.size}, "size", "of the pieces of --split size")
	f.Var(sizeFlag{n: &o.maxBytes}, "max-bytes", "largest content of the dictionary, 256B to 512KiB")
	f.Uint32Var(&o.id, "id", 0, "id of the dictionary; 0 derives one from its content")
	f.Var(sizeFlag{n: &o.limit}, "limit", "largest sum of all files, at most 1GiB")
	return cmd
}

func (o *compressTrainFlags) run(files []string, stdin io.Reader) (*compressTrained, error) {
	switch {
	case o.out == "":
		return nil, usagef("--out: name the file to write")
	case o.size < 16 || o.size > benchSizeMax:
		return nil, usagef("--size %s: want 16B to 4MiB", sizeText(o.size))
	case o.maxBytes < 256 || o.maxBytes > compression.DictionaryMaxBytes/2:
		return nil, usagef("--max-bytes %s: want 256B to 512KiB", sizeText(o.maxBytes))
	case o.limit < 1 || o.limit > benchLimitMax:
		return nil, usagef("--limit %s: want 1B to 1GiB", sizeText(o.limit))
	}
	if err := splitFlag(o.split, "lines", "size", "files"); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(o.out); err == nil && !o.overwrite {
		return nil, fault.New(fault.Exists, "compress train").WithField("--out").WithDetail("%s exists; --overwrite replaces it", o.out)
	}
	d, err := readData(files, stdin, o.limit)
	if err != nil {
		return nil, err
	}
	train, held := o.samples(d)
	b, err := compression.TrainDictionary(train, compression.TrainOptions{ID: o.id, MaxBytes: int(o.maxBytes)})
	if err != nil {
		return nil, err
	}
	dict, err := compression.ParseDictionary(b)
	if err != nil {
		return nil, err
	}
	t := &compressTrained{File: o.out, ID: dictionaryID(dict), Bytes: len(b), Samples: len(train), Held: len(held)}
	if err := t.measure(dict, held); err != nil {
		return nil, err
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if o.overwrite {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(o.out, flags, 0o644)
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(b); err != nil {
		f.Close()
		return nil, err
	}
	return t, f.Close()
}

// samples returns every eighth sample apart from the others. Ends of lines are
// no part of a message.
func (o *compressTrainFlags) samples(d *data) (train, held [][]byte) {
	n := 0
	add := func(s []byte) {
		if n++; n%8 == 0 {
			held = append(held, s)
		} else {
			train = append(train, s)
		}
	}
	switch o.split {
	case "lines":
		d.lines(func(line []byte) {
			for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r') {
				line = line[:len(line)-1]
			}
			if len(line) > 0 {
				add(line)
			}
		})
	case "size":
		for _, s := range d.bodies(int(o.size), false) {
			add(s)
		}
	default:
		for _, s := range d.files {
			add(s)
		}
	}
	return train, held
}

// measure fills in the ratios, of at most 4,096 samples.
func (t *compressTrained) measure(d *compression.Dictionary, held [][]byte) error {
	var raw, with, smallest, without int
	var buf []byte
	for _, s := range spread(held, 1<<12, 4<<20) {
		raw += len(s)
		for _, c := range []struct {
			n   *int
			fn  func(dst, src []byte, l compression.Level) ([]byte, error)
			lvl compression.Level
		}{
			{&with, d.AppendCompress, compression.LevelFastest},
			{&smallest, d.AppendCompress, compression.LevelSmallest},
			{&without, func(dst, src []byte, l compression.Level) ([]byte, error) {
				return compression.AppendCompress(dst, src, message.Zstd, l)
			}, compression.LevelFastest},
		} {
			var err error
			if buf, err = c.fn(buf[:0], s, c.lvl); err != nil {
				return err
			}
			*c.n += min(len(buf), len(s)) // what does not get smaller is sent as it is
		}
	}
	if raw > 0 {
		t.Ratio, t.Smallest, t.Without = float64(raw)/float64(with), float64(raw)/float64(smallest), float64(raw)/float64(without)
	}
	return nil
}

// dictionaryID is how ids of dictionaries are written.
func dictionaryID(d *compression.Dictionary) string { return fmt.Sprintf("%08x", d.ID()) }

// readDictionary reads and checks a file.
func readDictionary(name string) (*compression.Dictionary, error) {
	b, err := readBounded(name, nil, compression.DictionaryMaxBytes)
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, fault.New(fault.TooLarge, "read "+name).WithField("dictionary").
			WithLimit(compression.DictionaryMaxBytes+1, compression.DictionaryMaxBytes)
	}
	d, err := compression.ParseDictionary(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return d, nil
}

func newCompressInspect(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect DICTIONARY...",
		Short: "Check dictionaries and print their ids",
		Long:  "Check that files are zstd dictionaries a topic would take, and print their ids, by which batches name them.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("missing argument: DICTIONARY")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			type row struct {
				File  string `json:"file"`
				ID    string `json:"id"`
				Bytes int    `json:"bytes"`
			}
			var all []row
			var rows [][]string
			for _, name := range args {
				d, err := readDictionary(name)
				if err != nil {
					return err
				}
				all = append(all, row{name, dictionaryID(d), len(d.Bytes())})
				rows = append(rows, []string{name, dictionaryID(d), sizeText(int64(len(d.Bytes())))})
			}
			return g.print(cmd.OutOrStdout(), all, []string{"FILE", "ID", "SIZE"}, rows)
		},
	}
}
