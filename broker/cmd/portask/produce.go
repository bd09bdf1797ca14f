package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/serialization"
)

// produceFlags are those of `portask produce`.
type produceFlags struct {
	whole     bool
	separator string
	key       string
	headers   []string
	partition int
	ack       string
	algorithm string
	strategy  string
	linger    time.Duration
	codec     string
	messages  bool
	values    bool
	ids       bool
	trace     bool
	expire    time.Duration
	mediaType string
	artefact  string
	decisions string
	explain   bool

	encoding message.Encoding    // of --codec
	source   serialization.Codec // of --messages
}

func newProduce(g *globals) *cobra.Command {
	var o produceFlags
	cmd := &cobra.Command{
		Use:   "produce TOPIC [FILE...]",
		Short: "Send lines or files as messages",
		Long: `Send each line of the files, or of standard input, as one message; with --whole, each file is one message.
The command ends when every message was answered at the level of --ack, and prints how many there were. It stops at the
first failure and names the line. While the broker is away, or has no room, it says so and tries again; when nothing was
answered for --timeout it ends.

With --codec each line, or file, is JSON, and is sent in that encoding; every batch names it, so that consumers know.
--values reads JSON values one behind the other instead, over several lines or many in one.
With --messages the input is whole messages in that encoding, as ` + "`portask consume --messages`" + ` prints them: keys, headers,
ids and times are kept, offsets are not.

  none      not answered at all
  accepted  the broker has it: survives the end of the broker's process
  durable   synced to the device: survives power loss`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("missing argument: TOPIC")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return produce(cmd.Context(), g, &o, args[0], args[1:], cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.whole, "whole", false, "each file is one message")
	f.StringVar(&o.separator, "key-separator", "", `what stands between key and value in a line (escapes: \t, \xHH)`)
	f.StringVar(&o.key, "key", "", "key of every message")
	f.StringArrayVarP(&o.headers, "header", "H", nil, "header of every message, name=value, or name:=value for a number, true, false or a time; may be repeated")
	f.StringVar(&o.mediaType, "content-type", "", "header content-type of every message: the media type of its value")
	f.BoolVar(&o.trace, "trace", false, "begin a W3C trace, and send a span of it with each message")
	f.DurationVar(&o.expire, "expire", 0, "messages are worth nothing any more after this long, rounded up to a second")
	f.IntVar(&o.partition, "partition", -1, "partition; chosen by key, or in turn, if not given")
	f.StringVar(&o.ack, "ack", "durable", "none, accepted or durable")
	f.StringVar(&o.algorithm, "compression", "auto", "none, gzip, snappy, lz4, zstd or brotli; adaptive chooses for each batch; auto is what the topic or the broker is configured for")
	f.StringVar(&o.strategy, "compress", "threshold", "when to use --compression: always, never, or threshold: batches from 1 KiB, if it saves something; it means nothing with adaptive")
	f.BoolVar(&o.explain, "explain", false, "say at the end, on standard error, what adaptive compression chose and why")
	f.StringVar(&o.decisions, "decision-log", "", "record what adaptive compression decides to this file, for perflab policy replay")
	f.StringVar(&o.artefact, "artefact", "", "file with the policy of adaptive compression, as perflab policy train writes it, instead of the built-in one")
	f.StringVar(&o.codec, "codec", "raw", "how values are encoded: "+codecNames+", or auto, what the topic or the broker is configured for; but for raw, the input is JSON")
	f.BoolVar(&o.ids, "id", false, "give every message that has none an identifier, a ULID")
	f.BoolVar(&o.values, "values", false, "the input is a stream of JSON values, not lines; with --codec")
	f.BoolVar(&o.messages, "messages", false, "the input is whole messages, encoded as --codec says")
	f.DurationVar(&o.linger, "linger", 5*time.Millisecond, "how long a batch may wait to fill")
	return cmd
}

// options checks the flags that are the command's own.
func (o *produceFlags) options() (opts []client.ProducerOption, headers message.Headers, err error) {
	advised := o.codec == "auto" && !o.messages
	if advised {
		o.encoding = message.JSON // as the input is
	} else if o.encoding, err = parseCodec(o.codec); err != nil {
		return nil, nil, err
	}
	if o.messages {
		if o.source, err = wholeCodec(serialization.Default(), o.encoding); err != nil {
			return nil, nil, err
		}
	}
	level, err := message.ParseAckLevel(o.ack)
	if err != nil {
		return nil, nil, usagef("--ack %q: want none, accepted or durable", o.ack)
	}
	policy := compression.DefaultPolicy()
	chooses := o.algorithm == compression.Adaptive.String()
	if o.algorithm != "auto" && !chooses {
		if policy.Algorithm, err = message.ParseAlgorithm(o.algorithm); err != nil {
			return nil, nil, usagef("--compression %q: want auto, adaptive, none, gzip, snappy, lz4, zstd or brotli", o.algorithm)
		}
	}
	if policy.Strategy, err = compression.ParseStrategy(o.strategy); err != nil || policy.Strategy == compression.Adaptive {
		return nil, nil, usagef("--compress %q: want always, threshold or never", o.strategy)
	}
	if o.algorithm == "auto" && policy.Strategy == compression.Always {
		return nil, nil, usagef("--compress always: name the algorithm with --compression")
	}
	if policy.Algorithm == message.None {
		policy.Strategy = compression.Never
	}
	if chooses {
		policy = compression.Policy{Strategy: compression.Adaptive}
	}
	if headers, err = parseHeaders(o.headers); err != nil {
		return nil, nil, err
	}
	if o.mediaType != "" {
		headers.SetContentType(o.mediaType)
	}
	if o.expire < 0 {
		return nil, nil, usagef("--expire %v: want a time to come", o.expire)
	}
	opts = []client.ProducerOption{client.WithAck(level), client.WithLinger(o.linger), client.WithIDs(o.ids)}
	if o.algorithm != "auto" || policy.Strategy == compression.Never {
		opts = append(opts, client.WithCompression(policy))
	}
	if !o.messages && !advised { // those say it themselves
		opts = append(opts, client.WithEncoding(o.encoding))
	}
	return opts, headers, nil
}

// produceReport is what the command prints at its end.
type produceReport struct {
	Topic    string `json:"topic"`
	Messages int64  `json:"messages"`
	Bytes    int64  `json:"bytes"`
	Ack      string `json:"ack"`
	// Batches that were answered, and the mean time from sending one to its
	// answer; none at ack level none.
	Batches    uint64  `json:"batches,omitempty"`
	AnsweredMs float64 `json:"answered_ms,omitempty"`
}

func produce(ctx context.Context, g *globals, o *produceFlags, topic string, files []string, stdin io.Reader, stdout, stderr io.Writer) (err error) {
	opts, headers, err := o.options()
	if err != nil {
		return err
	}
	separator, err := unescape(o.separator)
	if err != nil {
		return err
	}
	if o.whole && len(files) == 0 {
		return usagef("--whole: name the files; - is standard input")
	}
	if o.messages && (o.whole || o.values || len(separator) > 0 || o.key != "" || len(headers) > 0 || o.trace || o.expire > 0) {
		return usagef("--messages: the messages are whole; --whole, --values, --key, --key-separator, --header, --content-type, --trace and --expire have no meaning")
	}
	if o.values && (o.whole || len(separator) > 0 || o.encoding == message.Raw) {
		return usagef("--values: needs --codec cbor, json or msgpack; --whole and --key-separator have no meaning")
	}
	if o.whole && len(separator) > 0 {
		return usagef("--key-separator splits lines; it has no meaning with --whole")
	}
	// A batch is given up by the watch, unless only its own partition has trouble.
	opts = append(opts, client.WithDeliveryTimeout(max(client.DefaultDeliveryTimeout, g.timeout)))
	in := &input{files: files, stdin: stdin, whole: o.whole, separator: separator, maxBytes: message.DefaultLimits().MessageBytes}
	var report produceReport
	dial, done, err := o.policy(stderr)
	if err != nil {
		return err
	}
	defer func() {
		if derr := done(); err == nil {
			err = derr
		}
	}()
	err = g.watch(ctx, "produce "+topic, stderr, func(ctx context.Context, w *waiting) (err error) {
		c, err := g.dial(ctx, dial...)
		if err != nil {
			return err
		}
		defer func() {
			if cerr := c.Close(); err == nil {
				err = cerr // --decision-log could not be written
			}
		}()
		open, cancel := g.within(ctx)
		defer cancel()
		p, err := c.Producer(open, topic, opts...)
		if err != nil {
			return err
		}
		w.on(func() waitState {
			s := p.Stats()
			return waitState{what: p.Waiting(), done: s.Acknowledged + s.Failed, limit: true}
		})
		report, err = send(ctx, p, o, in, headers)
		if o.explain {
			o.say(p, stderr)
		}
		return err
	})
	if err != nil {
		return err
	}
	report.Topic, report.Ack = topic, o.ack
	if g.output == "json" {
		return g.print(stdout, report, nil, nil)
	}
	_, err = fmt.Fprintf(stdout, "%d messages, %s, to %s: %s\n", report.Messages, sizeText(report.Bytes), topic, o.ack)
	return err
}

// sending is one run of the command.
type sending struct {
	p         *client.Producer
	partition int                     // negative: the producer's choice
	stop      context.CancelCauseFunc // called with the first failure of an answer

	mu     sync.Mutex
	report produceReport // guarded by mu
}

// one hands m, which came from at, to the producer.
func (s *sending) one(ctx context.Context, at place, m *message.Message) error {
	size := int64(len(m.Value))
	answered := func(_ client.Receipt, err error) {
		if err != nil {
			s.stop(fmt.Errorf("%s: %w", at, err))
			return
		}
		s.mu.Lock()
		s.report.Messages++
		s.report.Bytes += size
		s.mu.Unlock()
	}
	var err error
	if s.partition >= 0 {
		err = s.p.SendAsyncTo(ctx, uint32(s.partition), m, answered)
	} else {
		err = s.p.SendAsync(ctx, m, answered)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	return nil
}

// send passes every message of in to the producer and waits for the answers.
// The first failure, of reading, sending or of an answer, ends it.
func send(ctx context.Context, p *client.Producer, o *produceFlags, in *input, headers message.Headers) (produceReport, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s := &sending{p: p, partition: o.partition, stop: stop}
	// A terminal may be read for ever: neither a signal nor a failure waits for
	// the next line.
	read := make(chan error, 1)
	go func() {
		one := func(at place, m *message.Message) error { return s.one(ctx, at, m) }
		switch k := newMaker(o, p, headers, one); {
		case o.messages:
			read <- eachMessage(o.source, in.files, in.stdin, one)
		case o.values:
			read <- k.values(in)
		default:
			read <- in.each(k.one)
		}
	}()
	var err error
	select {
	case err = <-read:
	case <-ctx.Done():
	}
	if err == nil {
		err = p.Flush(ctx)
	}
	// An answer that failed is the cause; what followed from it is not.
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if cerr := p.Close(ctx); err == nil {
		err = cerr
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if stats := p.Stats(); stats.Acknowledged > 0 && o.ack != message.AckNone.String() {
		s.report.Batches = stats.Acknowledged
		s.report.AnsweredMs = float64(stats.InFlight.Microseconds()/int64(stats.Acknowledged)) / 1000
	}
	return s.report, err
}
