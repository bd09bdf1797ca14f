package main

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

func newTopic(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "topic",
		Short: "Create, list, describe, alter and delete topics",
		Args:  exactArgs(),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTopicCreate(g), newTopicList(g), newTopicDescribe(g), newTopicAlter(g), newTopicDelete(g), newTopicDictionary(g))
	return cmd
}

// topicFlags are the settings of a topic as flags. What was not given is the
// broker's default (create) or stays as it is (alter).
type topicFlags struct {
	partitions     int
	visibility     string
	retention      time.Duration
	retentionBytes int64
	segment        int64
	compression    string
	level          string
	strategy       string
	encoding       string
}

func (o *topicFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.DurationVar(&o.retention, "retention", 0, "age at which segments may be removed; 0 is never")
	f.Var(sizeFlag{n: &o.retentionBytes, unlimited: true}, "retention-bytes", "size of a partition above which its oldest segments are removed, or unlimited")
	f.Var(sizeFlag{n: &o.segment}, "segment", "segment size")
	f.StringVar(&o.compression, "compression", "", "what producers are advised to compress with: auto (as the broker is configured), none, gzip, snappy, lz4, zstd or brotli")
	f.StringVar(&o.level, "compression-level", "", "auto, fastest, balanced or smallest")
	f.StringVar(&o.strategy, "compression-strategy", "", "when they compress: auto, never, always, threshold, or adaptive, which chooses the algorithm of each batch too")
	f.StringVar(&o.encoding, "encoding", "", "how producers are advised to encode values: auto, "+codecNames)
}

// registerFixed adds what a topic keeps for its life.
func (o *topicFlags) registerFixed(cmd *cobra.Command) {
	f := cmd.Flags()
	f.IntVar(&o.partitions, "partitions", 0, "number of partitions")
	f.StringVar(&o.visibility, "visibility", "", "durable or accepted: what a message must have reached before it is consumed")
}

// change holds the flags that were given.
func (o *topicFlags) change(cmd *cobra.Command) (client.TopicChange, error) {
	var c client.TopicChange
	given := cmd.Flags().Changed
	if given("partitions") {
		c.Partitions = &o.partitions
	}
	if given("visibility") {
		v, err := message.ParseAckLevel(o.visibility)
		if err != nil || v == message.AckNone {
			return c, usagef("--visibility %q: want durable or accepted", o.visibility)
		}
		c.Visibility = &v
	}
	if given("retention") {
		if o.retention < 0 {
			return c, usagef("--retention %v: want 0 (never removed) or more", o.retention)
		}
		r := o.retention
		if r == 0 {
			r = client.Unlimited
		}
		c.Retention = &r
	}
	if given("retention-bytes") {
		if o.retentionBytes == 0 {
			o.retentionBytes = client.Unlimited
		}
		c.RetentionBytes = &o.retentionBytes
	}
	if given("segment") {
		c.SegmentBytes = &o.segment
	}
	var err error
	if given("compression") {
		if c.Compression, err = chosen("compression", o.compression, "none, gzip, snappy, lz4, zstd or brotli", message.ParseAlgorithm); err != nil {
			return c, err
		}
	}
	if given("compression-level") {
		if c.Level, err = chosen("compression-level", o.level, "fastest, balanced or smallest", compression.ParseLevel); err != nil {
			return c, err
		}
	}
	if given("compression-strategy") {
		if c.Strategy, err = chosen("compression-strategy", o.strategy, "never, always, threshold or adaptive", compression.ParseStrategy); err != nil {
			return c, err
		}
	}
	if given("encoding") {
		if c.Encoding, err = chosen("encoding", o.encoding, codecNames, message.ParseEncoding); err != nil {
			return c, err
		}
	}
	return c, nil
}

// chosen reads a flag that may be auto.
func chosen[T ~uint8](flag, text, names string, parse func(string) (T, error)) (*client.Choice[T], error) {
	c := new(client.Choice[T])
	if text == "auto" {
		return c, nil
	}
	v, err := parse(text)
	if err != nil || text == "" {
		return nil, usagef("--%s %q: want auto, %s", flag, text, names)
	}
	*c = client.Choose(v)
	return c, nil
}

// choiceText is the name of what was chosen, or auto.
func choiceText[T interface {
	~uint8
	String() string
}](c client.Choice[T]) string {
	if v, ok := c.Value(); ok {
		return v.String()
	}
	return "auto"
}

func newTopicCreate(g *globals) *cobra.Command {
	var o topicFlags
	cmd := &cobra.Command{
		Use:   "create TOPIC",
		Short: "Create a topic",
		Args:  exactArgs("TOPIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.change(cmd)
			if err != nil {
				return err
			}
			cfg := client.TopicConfig{Name: args[0]}
			set(&cfg.Partitions, c.Partitions)
			set(&cfg.Visibility, c.Visibility)
			set(&cfg.Retention, c.Retention)
			set(&cfg.RetentionBytes, c.RetentionBytes)
			set(&cfg.SegmentBytes, c.SegmentBytes)
			set(&cfg.Compression, c.Compression)
			set(&cfg.Level, c.Level)
			set(&cfg.Encoding, c.Encoding)
			set(&cfg.Strategy, c.Strategy)
			return g.admin(cmd, func(a *client.Admin) error {
				ctx, cancel := g.within(cmd.Context())
				defer cancel()
				t, err := a.CreateTopic(ctx, cfg)
				if err != nil {
					return err
				}
				return g.printTopic(cmd.OutOrStdout(), &t)
			})
		},
	}
	o.register(cmd)
	o.registerFixed(cmd)
	return cmd
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func newTopicAlter(g *globals) *cobra.Command {
	var o topicFlags
	cmd := &cobra.Command{
		Use:   "alter TOPIC",
		Short: "Change a topic's settings; what is not named stays as it is",
		Long: `Change a topic's settings; what is not named stays as it is. Its number of partitions and its visibility are those it
was created with.`,
		Args: exactArgs("TOPIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.change(cmd)
			if err != nil {
				return err
			}
			if c == (client.TopicChange{}) {
				return usagef("nothing to alter: name a setting")
			}
			return g.admin(cmd, func(a *client.Admin) error {
				ctx, cancel := g.within(cmd.Context())
				defer cancel()
				t, err := a.AlterTopic(ctx, args[0], c)
				if err != nil {
					return err
				}
				return g.printTopic(cmd.OutOrStdout(), &t)
			})
		},
	}
	o.register(cmd)
	return cmd
}

func newTopicDelete(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "delete TOPIC...",
		Short: "Delete topics with their messages",
		Long: `Delete each topic with its messages. One that cannot be deleted does not keep the others: the command names all that
could not, counted from 0, and ends with the exit code of the first that trying again would not help.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("missing argument: TOPIC")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.admin(cmd, func(a *client.Admin) error {
				errs := make([]error, len(args))
				for i, name := range args {
					ctx, cancel := g.within(cmd.Context())
					errs[i] = a.DeleteTopic(ctx, name)
					cancel()
				}
				if len(args) == 1 {
					return errs[0]
				}
				return fault.Collect("delete topics", "topic", errs)
			})
		},
	}
}

func newTopicList(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the topics",
		Args:  exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return g.admin(cmd, func(a *client.Admin) error {
				ctx, cancel := g.within(cmd.Context())
				defer cancel()
				topics, err := a.ListTopics(ctx)
				if err != nil {
					return err
				}
				reports := make([]topicReport, 0, len(topics))
				var rows [][]string
				for i := range topics {
					t := reportTopic(&topics[i])
					reports = append(reports, t)
					rows = append(rows, []string{
						t.Name, strconv.Itoa(len(t.Partitions)), t.Visibility, strconv.FormatInt(t.messages(), 10), sizeText(t.bytes()), t.health(),
					})
				}
				return g.print(cmd.OutOrStdout(), reports, []string{"TOPIC", "PARTITIONS", "VISIBILITY", "MESSAGES", "SIZE", "HEALTH"}, rows)
			})
		},
	}
}

func newTopicDescribe(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "describe TOPIC",
		Short: "Show a topic's settings and partitions",
		Args:  exactArgs("TOPIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.admin(cmd, func(a *client.Admin) error {
				ctx, cancel := g.within(cmd.Context())
				defer cancel()
				t, err := a.DescribeTopic(ctx, args[0])
				if err != nil {
					return err
				}
				return g.printTopic(cmd.OutOrStdout(), &t)
			})
		},
	}
}

// admin runs f with a connection.
func (g *globals) admin(cmd *cobra.Command, f func(*client.Admin) error) error {
	c, err := g.dial(cmd.Context())
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c.Admin())
}

// topicReport is a topic in the output of the command.
type topicReport struct {
	Name           string            `json:"name"`
	ID             string            `json:"id"`
	Engine         string            `json:"engine"`
	Levels         []string          `json:"levels"`
	Visibility     string            `json:"visibility"`
	RetentionMs    int64             `json:"retention_ms"`    // -1: never removed
	RetentionBytes int64             `json:"retention_bytes"` // of a partition; -1: unlimited
	SegmentBytes   int64             `json:"segment_bytes"`
	Compression    string            `json:"compression"` // advised to producers; auto: as the broker is configured
	Level          string            `json:"compression_level"`
	Strategy       string            `json:"compression_strategy"`
	Encoding       string            `json:"encoding"`
	Dictionary     string            `json:"dictionary,omitempty"`
	Created        string            `json:"created"`
	Partitions     []partitionReport `json:"partitions"`
}

type partitionReport struct {
	Partition uint32 `json:"partition"`
	LogStart  int64  `json:"log_start"`
	HWM       int64  `json:"hwm"`
	LogEnd    int64  `json:"log_end"`
	Durable   int64  `json:"durable"`
	Bytes     int64  `json:"bytes"`
	Epoch     uint64 `json:"epoch"`
	Health    string `json:"health"`
}

func reportTopic(t *client.Topic) topicReport {
	r := topicReport{
		Name: t.Name, ID: t.ID.String(), Engine: t.Engine, Visibility: t.Visibility.String(),
		RetentionMs: t.Retention.Milliseconds(), RetentionBytes: t.RetentionBytes, SegmentBytes: t.SegmentBytes,
		Created: t.Created.UTC().Format(timeLayout),
	}
	if t.Retention < 0 {
		r.RetentionMs = client.Unlimited
	}
	r.Compression, r.Level, r.Strategy, r.Encoding = choiceText(t.Compression), choiceText(t.Level), choiceText(t.Strategy), choiceText(t.Encoding)
	if t.Dictionary != 0 {
		r.Dictionary = dictionaryText(t.Dictionary)
	}
	for _, l := range t.Levels {
		r.Levels = append(r.Levels, l.String())
	}
	for i := range t.Partitions {
		p := &t.Partitions[i]
		r.Partitions = append(r.Partitions, partitionReport{
			Partition: p.Index, LogStart: int64(p.LogStart), HWM: int64(p.HWM), LogEnd: int64(p.LogEnd),
			Durable: int64(p.Durable), Bytes: p.Bytes, Epoch: p.Epoch, Health: p.Health.String(),
		})
	}
	return r
}

// messages are the offsets a consumer can read; control and missing ones count
// too.
func (r *topicReport) messages() (n int64) {
	for i := range r.Partitions {
		n += max(0, r.Partitions[i].HWM-r.Partitions[i].LogStart)
	}
	return n
}

func (r *topicReport) bytes() (n int64) {
	for i := range r.Partitions {
		n += r.Partitions[i].Bytes
	}
	return n
}

// health is "ok" or the first partition's that is not.
func (r *topicReport) health() string {
	for i := range r.Partitions {
		if h := r.Partitions[i].Health; h != "ok" {
			return fmt.Sprintf("%s (partition %d)", h, r.Partitions[i].Partition)
		}
	}
	return "ok"
}

func (g *globals) printTopic(w io.Writer, t *client.Topic) error {
	r := reportTopic(t)
	if g.output == "json" {
		return g.print(w, r, nil, nil)
	}
	retention := "unlimited"
	if t.Retention >= 0 {
		retention = shortDuration(t.Retention)
	}
	if err := g.print(w, nil, nil, [][]string{
		{"topic", r.Name},
		{"id", r.ID},
		{"engine", r.Engine},
		{"levels", strings.Join(r.Levels, ", ")},
		{"visibility", r.Visibility},
		{"retention", retention},
		{"retention bytes", sizeText(r.RetentionBytes)},
		{"segment", sizeText(r.SegmentBytes)},
		{"compression", r.Compression + ", level " + r.Level + ", strategy " + r.Strategy},
		{"encoding", r.Encoding},
		{"dictionary", cmp.Or(r.Dictionary, "none")},
		{"created", r.Created},
	}); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	var rows [][]string
	for _, p := range r.Partitions {
		rows = append(rows, []string{
			strconv.FormatUint(uint64(p.Partition), 10), strconv.FormatInt(p.LogStart, 10), strconv.FormatInt(p.HWM, 10),
			strconv.FormatInt(p.LogEnd, 10), strconv.FormatInt(p.Durable, 10), sizeText(p.Bytes), p.Health,
		})
	}
	return g.print(w, nil, []string{"PARTITION", "START", "HWM", "END", "DURABLE", "SIZE", "HEALTH"}, rows)
}

// shortDuration drops the zero minutes and seconds of time.Duration's String.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
