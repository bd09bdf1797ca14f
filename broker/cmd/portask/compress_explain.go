package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/monitor"
)

// explainFlags are those of `portask compress explain`.
type explainFlags struct {
	topic string
	admin string
}

func newCompressExplain(g *globals) *cobra.Command {
	var o explainFlags
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Say how adaptive producers compress a topic, and why",
		Long: `Show what the adaptive producers of a topic choose: the algorithm and level in use and why, what each would cost a
batch like the last one by prediction and as observed, what was sent by each, and when the choice changed. Producers
report it to the broker once a second while they send, and the broker's admin listener shows it; see docs/adaptive.md.

Without --topic all topics are shown.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return explain(cmd.Context(), g, &o, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.topic, "topic", "", "the topic; all that have adaptive producers if it is not given")
	f.StringVar(&o.admin, "admin", "", "address of the admin listener; the port above --server's if it is not given")
	return cmd
}

func explain(ctx context.Context, g *globals, o *explainFlags, stdout io.Writer) error {
	if o.topic != "" {
		if err := message.CheckTopicName("explain compression", o.topic); err != nil {
			return usagef("--topic %q: %v", o.topic, err)
		}
	}
	admin, err := adminAddress(g, o.admin)
	if err != nil {
		return err
	}
	src := newStats(admin, g.timeout)
	defer src.close()
	var all monitor.Explained
	if err := src.choices(ctx, o.topic, &all); err != nil {
		return err
	}
	if g.output == "json" {
		return g.print(stdout, all, nil, nil)
	}
	if len(all.Topics) == 0 {
		if _, err := fmt.Fprintln(stdout, "no adaptive producer has reported anything"); err != nil {
			return err
		}
	}
	return all.WriteText(stdout)
}

// adminAddress is given, or the port above the broker's.
func adminAddress(g *globals, given string) (string, error) {
	if given == "" {
		host, port, err := net.SplitHostPort(g.server)
		n, nerr := strconv.Atoi(port)
		if err != nil || nerr != nil || n < 1 || n >= 1<<16-1 {
			return "", usagef("--server %q: want host:port, or name the admin listener by --admin", g.server)
		}
		given = net.JoinHostPort(host, strconv.Itoa(n+1))
	}
	if _, _, err := net.SplitHostPort(given); err != nil {
		return "", usagef("--admin %q: want host:port", given)
	}
	return given, nil
}

// choices asks for what producers chose. Errors are those of read, and what the
// admin listener says of the topic.
func (s *stats) choices(ctx context.Context, topic string, all *monitor.Explained) error {
	op := "read choices of " + s.addr
	u := url.URL{Scheme: "http", Host: s.addr, Path: "/debug/compression"}
	if topic != "" {
		u.RawQuery = url.Values{"topic": {topic}}.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fault.New(fault.Invalid, op).WithField("admin").WithCause(err)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return s.failed(ctx, op, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, statsBytesMax+1))
	switch {
	case err != nil:
		return s.failed(ctx, op, err)
	case len(b) > statsBytesMax:
		return fault.New(fault.TooLarge, op).WithField("answer").WithLimit(int64(len(b)), statsBytesMax)
	case resp.StatusCode == http.StatusNotFound && topic != "" && json.Unmarshal(b, all) == nil:
		return fault.New(fault.NotFound, "explain compression").WithField("topic").WithDetail("%s", all.Unexplained(topic))
	case resp.StatusCode != http.StatusOK:
		return fault.New(fault.ProtocolViolation, op).WithField("status").WithDetail("is %d: no admin listener of a broker?", resp.StatusCode)
	}
	if err := json.Unmarshal(b, all); err != nil {
		return fault.New(fault.ProtocolViolation, op).WithDetail("no answer of a broker").WithCause(err)
	}
	return nil
}
