package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/serialization"
)

// consumeFlags are those of `portask consume`.
type consumeFlags struct {
	from       string
	partitions []int
	count      int64
	follow     bool
	format     string
	codec      string
	pretty     bool
	escape     bool
	messages   bool
	where      []string
	unexpired  bool
	stats      bool
}

func newConsume(g *globals) *cobra.Command {
	var o consumeFlags
	cmd := &cobra.Command{
		Use:   "consume TOPIC",
		Short: "Print messages",
		Long: `Print messages until the end of what the topic holds when the command starts, until --count messages, or with --follow
until it is interrupted. While the broker is away it says so, and goes on where it was when the broker is back. It ends
when nothing came for --timeout; with --follow, which waits for ever, only when --timeout was given and the broker was
away for as long.

--from says where to begin in each partition:
  earliest      the oldest message there is (the default)
  latest        after the newest; useful with --follow
  offset:N      this offset
  time:RFC3339  the first message of the first batch that is not older

--format prints each message; --output json prints one JSON object a line instead:
` + formatHelp + `
--where prints only the messages whose headers are as it says; given more than once, all must hold:
` + whereHelp + `
--codec prints values in another encoding than they are stored in, whatever that is: json makes every value readable.
--messages prints whole messages in that encoding, for ` + "`portask produce --messages`" + ` and other programs.`,
		Args: exactArgs("TOPIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return consume(cmd.Context(), g, &o, args[0], cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.from, "from", "earliest", "earliest, latest, offset:N or time:RFC3339")
	f.IntSliceVar(&o.partitions, "partition", nil, "these partitions only")
	f.Int64VarP(&o.count, "count", "n", 0, "stop after so many messages; 0 is no limit")
	f.BoolVarP(&o.follow, "follow", "f", false, "wait for new messages")
	f.StringVar(&o.codec, "codec", "raw", "how values are printed: "+codecNames+"; raw is as they are stored")
	f.BoolVar(&o.pretty, "pretty", false, "with --codec json: over several lines, indented")
	f.BoolVar(&o.escape, "escape-html", false, "with --codec json: <, > and & as escapes, to be put into HTML")
	f.BoolVar(&o.messages, "messages", false, "print whole messages, encoded as --codec says")
	f.StringArrayVar(&o.where, "where", nil, "only messages with such a header; may be repeated")
	f.BoolVar(&o.unexpired, "skip-expired", false, "leave out messages whose time is over")
	f.BoolVar(&o.stats, "stats", false, "say at the end, on standard error, how much came and how long it waited and took")
	f.StringVar(&o.format, "format", `%v\n`, "how a message is printed")
	return cmd
}

// consumed is what one run of the command needs.
type consumed struct {
	topic  string
	print  func(dst []byte, r *record) ([]byte, error)
	values transcoder
	where  conditions
	whole  serialization.Codec // of --messages, instead of print; nil without
	remain int64               // messages to print; below 0 is no limit
	// ends are the offsets at which each partition is done; nil with --follow.
	ends    map[uint32]message.Offset
	damaged int // ranges that are missing or damaged
	buf     []byte

	polling atomic.Bool   // the broker is waited for
	polled  atomic.Uint64 // answers of Poll
}

func consume(ctx context.Context, g *globals, o *consumeFlags, topic string, stdout, stderr io.Writer) error {
	from, err := parseStart(o.from)
	if err != nil {
		return err
	}
	f, err := parseFormat(o.format)
	if err != nil {
		return err
	}
	if o.count < 0 {
		return usagef("--count %d: want 0 or more", o.count)
	}
	run := &consumed{topic: topic, remain: o.count, print: func(dst []byte, r *record) ([]byte, error) { return f.append(dst, r), nil }}
	if run.remain == 0 {
		run.remain = -1
	}
	if run.values, err = o.transcoder(); err != nil {
		return err
	}
	if run.where, err = parseConditions(o.where); err != nil {
		return err
	}
	if g.output == "json" {
		run.print = appendJSON
	}
	if o.messages {
		if run.whole, err = wholeCodec(run.values.codecs, run.values.to); err != nil {
			return err
		}
	}
	return g.watch(ctx, "consume "+topic, stderr, func(ctx context.Context, w *waiting) error {
		c, err := g.dial(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		k, err := run.open(ctx, g, o, c, from)
		if k == nil || err != nil {
			return err
		}
		defer k.Close()
		if o.stats {
			defer func() { printStats(stderr, k.Stats()) }()
		}
		w.on(func() waitState { return run.waits(k, g.bounded) })
		return run.loop(ctx, k, stdout, stderr)
	})
}

// open subscribes; the Consumer is nil if there is nothing to print.
func (run *consumed) open(ctx context.Context, g *globals, o *consumeFlags, c *client.Client, from start) (*client.Consumer, error) {
	ctx, cancel := g.within(ctx)
	defer cancel()
	parts, err := choosePartitions(ctx, c, run.topic, o.partitions)
	if err != nil {
		return nil, err
	}
	if !o.follow {
		if run.ends, err = findEnds(ctx, c, run.topic, from, parts); err != nil || len(run.ends) == 0 {
			return nil, err
		}
	}
	opts := []client.ConsumerOption{client.From(from.client())}
	if o.unexpired {
		opts = append(opts, client.SkipExpired())
	}
	if len(o.partitions) > 0 {
		opts = append(opts, client.Partitions(parts...))
	}
	return c.Consumer(ctx, run.topic, opts...)
}

// waits is what the command waits for: nothing while it prints, or follows a
// topic where nothing happens.
func (run *consumed) waits(k *client.Consumer, bounded bool) waitState {
	s := waitState{what: k.Waiting(), done: run.polled.Load(), limit: bounded || run.ends != nil}
	switch {
	case !run.polling.Load():
		s.what = ""
	case s.what == "" && run.ends != nil:
		s.what = "the broker sends nothing"
	}
	return s
}

// transcoder is what --codec, --pretty and --escape-html make of values.
func (o *consumeFlags) transcoder() (t transcoder, err error) {
	if t.to, err = parseCodec(o.codec); err != nil {
		return t, err
	}
	options := serialization.DefaultOptions()
	if o.pretty {
		options.JSON.Indent = "  "
	}
	options.JSON.EscapeHTML = o.escape
	if t.layout = o.pretty || o.escape; t.layout && t.to != message.JSON {
		return t, usagef("--pretty and --escape-html need --codec json")
	}
	t.codecs, err = serialization.New(options)
	return t, err
}

// printStats says what a consumer did.
func printStats(w io.Writer, s client.ConsumerStats) {
	each := func(d time.Duration) time.Duration {
		return (d / time.Duration(max(1, s.Deliveries))).Round(time.Microsecond)
	}
	fmt.Fprintf(w, "%d messages in %d deliveries, %s; a delivery waited %v and took %v; %d messages expired, %d batches damaged\n",
		s.Messages, s.Deliveries, sizeText(int64(s.Bytes)), each(s.Waiting), each(s.Processing), s.Expired, s.Damaged)
}

func (s start) client() client.Start {
	switch s.kind {
	case fromLatest:
		return client.Latest
	case fromOffset:
		return client.At(s.offset)
	case fromTime:
		return client.Since(s.time)
	}
	return client.Earliest
}

// choosePartitions checks the wanted partitions against the topic's, or returns
// all of them.
func choosePartitions(ctx context.Context, c *client.Client, topic string, wanted []int) ([]uint32, error) {
	t, err := c.Admin().DescribeTopic(ctx, topic)
	if err != nil {
		return nil, err
	}
	var parts []uint32
	for _, w := range wanted {
		if w < 0 || w >= len(t.Partitions) {
			return nil, fault.New(fault.NotFound, "consume "+topic).WithField("partition").
				WithDetail("%d: the topic has %d partitions, from 0", w, len(t.Partitions))
		}
		parts = append(parts, uint32(w))
	}
	if len(wanted) == 0 {
		for i := range t.Partitions {
			parts = append(parts, uint32(i))
		}
	}
	return parts, nil
}

// findEnds returns the visible end of each partition that has messages from the
// start on.
func findEnds(ctx context.Context, c *client.Client, topic string, from start, parts []uint32) (map[uint32]message.Offset, error) {
	ends := make(map[uint32]message.Offset, len(parts))
	for _, p := range parts {
		o, err := c.Admin().ListOffsets(ctx, topic, p, from.client())
		if err != nil {
			return nil, err
		}
		if o.Offset < o.HWM {
			ends[p] = o.HWM
		}
	}
	return ends, nil
}

// flushBytes is how much output gathers before it is written: enough for one
// write to cover many small messages. It is written too after each delivery.
const flushBytes = 64 << 10

// loop prints until the end, the count, or the context. What the broker reports
// as missing or damaged, or what needs a dictionary that is gone, is named on
// stderr and passed over; the command then ends with the exit code for damage.
func (run *consumed) loop(ctx context.Context, k *client.Consumer, stdout, stderr io.Writer) error {
	out := bufio.NewWriterSize(stdout, flushBytes)
	for !run.finished() {
		run.polling.Store(true)
		b, err := k.Poll(ctx)
		run.polling.Store(false)
		run.polled.Add(1)
		if gap, ok := errors.AsType[*client.GapError](err); ok {
			run.damage(stderr, err)
			run.reached(gap.Partition, gap.Next)
			continue
		}
		if lost, ok := errors.AsType[*client.DictionaryError](err); ok {
			run.damage(stderr, err)
			run.reached(lost.Partition, lost.Next)
			if !run.finished() {
				err = k.Seek(ctx, lost.Partition, client.At(lost.Next))
			} else {
				err = nil
			}
			if err == nil {
				continue
			}
		}
		if err != nil {
			return errors.Join(out.Flush(), err)
		}
		err = run.batch(&b, out, stderr)
		b.Release()
		if err = errors.Join(err, out.Flush()); err != nil {
			return err
		}
	}
	if run.damaged > 0 {
		return fault.New(fault.Corrupted, "consume "+run.topic).WithDetail("%d ranges are missing or damaged", run.damaged)
	}
	return nil
}

func (run *consumed) finished() bool {
	return run.remain == 0 || run.ends != nil && len(run.ends) == 0
}

// reached notes that a partition was read up to the offset next.
func (run *consumed) reached(partition uint32, next message.Offset) {
	if end, ok := run.ends[partition]; ok && next >= end {
		delete(run.ends, partition)
	}
}

func (run *consumed) damage(stderr io.Writer, err error) {
	run.damaged++
	fmt.Fprintf(stderr, "portask: %v\n", err)
}

// batch prints the messages of one delivery.
func (run *consumed) batch(b *client.Batch, out *bufio.Writer, stderr io.Writer) (err error) {
	if _, more := run.ends[b.Partition]; run.ends != nil && !more {
		return nil // this partition is done
	}
	if run.whole != nil {
		if run.buf, err = serialization.AppendBatch(run.buf[:0], run.whole, run.wanted(b, stderr)); err != nil {
			return err
		}
		_, err = out.Write(run.buf)
	} else {
		for m := range run.wanted(b, stderr) {
			if err = run.one(&record{Topic: run.topic, Partition: b.Partition, Message: m}, out, stderr); err != nil {
				return err
			}
		}
	}
	if run.remain != 0 {
		run.reached(b.Partition, b.End)
	}
	return err
}

// wanted are the messages of one delivery that are to be printed.
func (run *consumed) wanted(b *client.Batch, stderr io.Writer) iter.Seq[*message.Message] {
	end, bounded := run.ends[b.Partition]
	return func(yield func(*message.Message) bool) {
		for m, err := range b.Messages() {
			if err != nil {
				run.damage(stderr, err)
				continue
			}
			if bounded && m.Offset >= end || run.remain == 0 {
				return
			}
			if !run.where.hold(m) {
				continue
			}
			run.remain = max(run.remain-1, -1)
			if !yield(m) || run.remain == 0 {
				return
			}
		}
	}
}

// one prints one message. A value that does not decode is damage.
func (run *consumed) one(r *record, out *bufio.Writer, stderr io.Writer) error {
	value, err := run.values.value(r.Message)
	if err != nil {
		run.damage(stderr, err)
		return nil
	}
	r.Message.Value = value
	if run.buf, err = run.print(run.buf[:0], r); err != nil {
		return err
	}
	_, err = out.Write(run.buf)
	return err
}
