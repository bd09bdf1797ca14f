package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage/disklog"
	"github.com/portask/portask/broker/topic"
)

func newLogDump(g *globals) *cobra.Command {
	var logs []string
	var text string
	var batches, messages bool
	cmd := &cobra.Command{
		Use:   "dump DIR",
		Short: "Print what the logs of a data directory hold",
		Long: `Print the logs of a data directory with their segments; with --batches each batch, with --messages each message in
the manner of ` + "`portask consume`" + `. --output json prints one JSON object a line. Damage is named where it lies and passed
over; the exit code is 10 then.

--format of a message:
` + formatHelp,
		Args: exactArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := logFilter(logs)
			if err != nil {
				return err
			}
			f, err := parseFormat(text)
			if err != nil {
				return err
			}
			out := bufio.NewWriter(cmd.OutOrStdout())
			d := &dumper{out: out, json: g.output == "json", batches: batches, messages: messages, format: f, names: make(map[string]string), dicts: make(map[string][]byte)}
			err = disklog.Inspect(vfs.OS(), args[0], filter, d.item)
			if ferr := out.Flush(); err == nil {
				err = ferr
			}
			if err != nil {
				return err
			}
			if d.damaged > 0 {
				return fault.New(fault.Corrupted, "dump "+args[0]).WithDetail("%d places are damaged", d.damaged)
			}
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&logs, "log", nil, "these logs only; may be repeated")
	fl.BoolVar(&batches, "batches", false, "print each batch")
	fl.BoolVar(&messages, "messages", false, "print each message")
	fl.StringVar(&text, "format", `%o %T %k %v\n`, "how a message is printed")
	return cmd
}

// dumper prints the items of an inspection.
type dumper struct {
	out               *bufio.Writer
	json              bool
	batches, messages bool
	format            format
	names             map[string]string       // topic id to name, where the catalogue tells
	dicts             map[string][]byte       // by the name of the file
	dict              *compression.Dictionary // the last one used
	dictName          string
	damaged           int
	buf, body         []byte
	reader            message.Reader
}

func (d *dumper) item(it *disklog.Item) error {
	switch it.Kind {
	case disklog.ItemMeta:
		d.learnNames(it)
		if name := filepath.Base(it.File); strings.HasPrefix(name, topic.DictionaryPrefix) && d.messages {
			d.dicts[name] = bytes.Clone(it.Bytes)
		}
		if d.json {
			return d.line(map[string]any{"kind": "metadata", "file": it.File, "bytes": it.Len})
		}
		return d.printf("metadata %s, %d bytes\n", it.File, it.Len)
	case disklog.ItemRecord:
		r := &it.Record
		if d.json {
			return d.line(map[string]any{
				"kind": "log", "log": it.Log.String(), "topic": d.topic(it), "epoch": r.Epoch,
				"start": r.Start, "durable": r.Durable, "clean": r.Clean, "written": micros(r.Written),
			})
		}
		end := "not closed in order"
		if r.Clean {
			end = "closed in order"
		}
		return d.printf("log %s %s: epoch %d, start %d, durable %d, %s\n", it.Log, d.topic(it), r.Epoch, r.Start, r.Durable, end)
	case disklog.ItemSegment:
		s := &it.Segment
		if d.json {
			return d.line(map[string]any{
				"kind": "segment", "log": it.Log.String(), "file": it.File, "base": s.Base, "end": s.End,
				"seed": fmt.Sprintf("%016x", uint64(s.Seed)), "created": micros(s.Created), "sealed": s.Sealed, "bytes": s.Bytes, "size": s.Size,
			})
		}
		state := "active"
		if s.Sealed {
			state = "sealed"
		}
		return d.printf("  segment %s: [%d, %d), %s, %s of batches in %s, created %s\n",
			filepath.Base(it.File), s.Base, s.End, state, sizeText(s.Bytes), sizeText(s.Size), micros(s.Created))
	case disklog.ItemBatch:
		return d.batch(it)
	case disklog.ItemProblem:
		if it.Problem.Class.Damage() {
			d.damaged++
		}
		if d.json {
			return d.line(map[string]any{"kind": "problem", "log": it.Log.String(), "problem": reportProblem(&it.Problem)})
		}
		return d.printf("  %s\n", it.Problem)
	}
	return nil
}

// storedLimits let everything pass that may have been stored, whatever the limits
// of the broker are now; it is in memory already.
var storedLimits = message.Limits{
	BatchBytes: 1 << 30, MessageBytes: 1 << 30, KeyBytes: 1 << 30, Headers: 1 << 24, HeaderBytes: 1 << 30, Messages: 1 << 24,
	DecompressedBytes: 1 << 30, DecompressedRatio: 1 << 20,
}

func (d *dumper) batch(it *disklog.Item) error {
	b, _, err := message.ParseBatch(it.Bytes, &storedLimits)
	if err != nil {
		return err
	}
	e := b.Envelope()
	if d.batches {
		if d.json {
			err = d.line(map[string]any{
				"kind": "batch", "log": it.Log.String(), "file": it.File, "position": it.Pos, "bytes": b.Size(), "body": b.BodySize(),
				"base": e.BaseOffset, "end": e.EndOffset(), "messages": b.Count(), "append_time": micros(e.AppendTime), "epoch": e.Epoch,
				"compression": e.Attributes.Algorithm().String(), "uncompressed": b.RawSize(),
				"producer_id": e.ProducerID, "producer_epoch": e.ProducerEpoch, "sequence": e.BaseSequence,
			})
		} else {
			err = d.printf("    batch at %d: [%d, %d), %d messages, %d bytes, %s, %s, producer %d/%d sequence %d\n", it.Pos, e.BaseOffset, e.EndOffset(),
				b.Count(), b.Size(), e.Attributes.Algorithm(), micros(e.AppendTime), e.ProducerID, e.ProducerEpoch, e.BaseSequence)
		}
		if err != nil {
			return err
		}
	}
	if !d.messages {
		return nil
	}
	section, body, err := b.Body()
	if err != nil {
		return err
	}
	if d.body, err = d.decompress(it, body, e.Attributes.Algorithm(), b.RawSize()); err != nil {
		if id, missing := compression.UnknownDictionary(err); missing {
			d.damaged++
			return d.printf("  %s: the batch at %d needs dictionary %08x, which is not there\n", it.File, it.Pos, id)
		}
		return err
	}
	b.Messages(&d.reader, &section, d.body, &storedLimits)
	var m message.Message
	for d.reader.Next(&m) {
		r := &record{Topic: d.topic(it), Partition: it.Log.Index, Message: &m}
		d.buf = d.buf[:0]
		if d.json {
			if d.buf, err = appendJSON(d.buf, r); err != nil {
				return err
			}
		} else {
			d.buf = d.format.append(d.buf, r)
		}
		if _, err := d.out.Write(d.buf); err != nil {
			return err
		}
	}
	return d.reader.Err()
}

// decompress uses the memory of the body before.
func (d *dumper) decompress(it *disklog.Item, body []byte, a message.Algorithm, declared int) ([]byte, error) {
	if id, _ := compression.FrameDictionary(body); id != 0 && a == message.Zstd {
		name := topic.DictionaryName(it.Log.Topic, id)
		if b := d.dicts[name]; b != nil && name != d.dictName {
			x, err := compression.ParseDictionary(b)
			if err != nil {
				return d.body, err
			}
			d.dict, d.dictName = x, name
		}
		if name == d.dictName {
			return d.dict.AppendDecompress(d.body[:0], body, declared, compression.Limits{})
		}
	}
	return compression.AppendDecompress(d.body[:0], body, a, declared, compression.Limits{})
}

// learnNames reads the topics' names from the catalogue; where it cannot, ids
// stand for them.
func (d *dumper) learnNames(it *disklog.Item) {
	var catalogue struct {
		Topics []struct {
			Name string `json:"name"`
			ID   string `json:"id"`
		} `json:"topics"`
	}
	if filepath.Base(it.File) != "topics" || json.Unmarshal(it.Bytes, &catalogue) != nil {
		return
	}
	for _, t := range catalogue.Topics {
		d.names[t.ID] = t.Name
	}
}

// topic is the name of the topic that a log belongs to, or its id.
func (d *dumper) topic(it *disklog.Item) string {
	id := ulid.ULID(it.Log.Topic).String()
	if name, ok := d.names[id]; ok {
		return name
	}
	return id
}

func (d *dumper) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(d.out, format, args...)
	return err
}

func (d *dumper) line(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = d.out.Write(append(b, '\n'))
	return err
}

// micros is a time of the broker as text.
func micros(us int64) string { return time.UnixMicro(us).UTC().Format(timeLayout) }
