package command

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/portask/portask/loadgen/conns"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/scenario"
)

func (p *Program) connsCommand() *cobra.Command {
	var f connsFlags
	var topic string
	c := &cobra.Command{
		Use:   "conns N",
		Short: "Open N connections, subscribe and hold each, tell what one costs the broker",
		Long: `Open N connections, subscribe and hold each, tell what one costs the broker.

Connections come from 127.0.0.2 and up, in one epoll loop that spends a descriptor and some 20 bytes on each. The memory
of the broker's process is read at several numbers of them; what one costs is the slope. The process is --pid's, or the
one that listens at the address on this machine. Where the limits of the system do not allow N connections, none is
opened, and the limit and how it is raised are told. Linux only.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var set []scenario.Setting
			add := func(flag, path, value string) {
				set = append(set, scenario.Setting{Path: path, Value: value, From: flag})
			}
			add("conns", "name", scenario.KindConnections)
			add("conns", "kind", scenario.KindConnections)
			add("N", "connections.count", args[0])
			for _, name := range []string{"steps", "heartbeat", "hold"} {
				if x := cmd.Flags().Lookup(name); x.Changed {
					add("--"+name, "connections."+name, x.Value.String())
				}
			}
			if topic == "" {
				add("conns", "topics.0.partitions", "1")
			} else {
				add("--topic", "topics.0.name", topic)
				add("--topic", "topics.0.existing", "true")
			}
			s, err := scenario.With(set...)
			if err != nil {
				return err
			}
			return f.run(cmd.Context(), p, s, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f.target.add(p, c)
	fs := c.Flags()
	fs.StringVar(&topic, "topic", "", "existing topic, instead of a new one")
	fs.String("steps", "", "numbers of connections at which memory is read, growing up to N (--set connections.steps of a scenario)")
	fs.Duration("heartbeat", 10*time.Minute, "interval between signs of life of each connection")
	fs.Duration("hold", 0, "how long all N are held")
	fs.StringVarP(&f.output, "output", "o", "table", "table or json, on standard output")
	fs.StringVar(&f.jsonFile, "json", "", "file for the result as JSON")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "no progress")
	return c
}

// connsFlags are what a scenario of connections needs of the command line.
type connsFlags struct {
	target           targetFlags
	keep             bool
	output, jsonFile string
	quiet            bool
}

func (f *connsFlags) run(ctx context.Context, p *Program, s *scenario.Scenario, stdout, stderr io.Writer) (err error) {
	if f.output != "table" && f.output != "json" {
		return fmt.Errorf("--output %q: want table or json", f.output)
	}
	if err := Writable("--json", f.jsonFile); err != nil {
		return err
	}
	k, err := p.driver(f.target.driver)
	if err != nil {
		return err
	}
	if k.Name != conns.Driver {
		return &driver.Unsupported{Driver: k.Name, What: "a scenario of kind connections", Why: "connections are held with the protocol of " + conns.Driver}
	}
	line, event := events(stderr, f.quiet)
	defer line.end()
	g, err := f.target.rig(ctx, p, s, event)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close(err)) }()
	plan := conns.Plan{Steps: s.Connections.Points(), TargetPID: g.pid, HoldFor: s.Connections.Hold}
	plan.Heartbeat = s.Connections.Heartbeat
	if plan.Addr, err = resolve(ctx, g.addr); err != nil {
		return err
	}
	if plan.TargetPID == 0 && plan.Addr.Addr().IsLoopback() {
		plan.TargetPID = conns.Listener(plan.Addr.Port())
	}
	remove, err := f.topic(ctx, g.driver, &s.Topics[0], &plan)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	plan.Progress = func(x conns.Point) {
		event(fmt.Sprintf("%d connections, target's memory %.2f MiB", x.Connections, float64(x.RSSBytes)/(1<<20)))
	}
	res, err := conns.Measure(ctx, plan)
	if err != nil {
		return err
	}
	if err := f.write(res, stdout); err != nil {
		return err
	}
	return costVerdict(res, s.Connections.CostAtMost)
}

// topic makes the one that is subscribed, or looks it up.
func (f *connsFlags) topic(ctx context.Context, d driver.Driver, x *scenario.Topic, plan *conns.Plan) (remove func() error, err error) {
	remove = func() error { return nil }
	t := driver.Topic{Name: x.Name, Partitions: x.Partitions, Visibility: x.VisibilityLevel(&scenario.Default().Producers), Retention: x.Retention, RetentionBytes: int64(x.RetentionBytes)}
	if x.Existing {
		t, err = d.Lookup(ctx, x.Name)
	} else {
		t.Name += "-" + rand.Text()
		if t, err = d.Prepare(ctx, t); err == nil && !f.keep {
			name := t.Name
			remove = func() error {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
				defer cancel()
				return d.Drop(ctx, name)
			}
		}
	}
	plan.Topic, plan.Partitions = t.Name, t.Partitions
	return remove, err
}

func (f *connsFlags) write(res *conns.Result, stdout io.Writer) error {
	b, err := json.MarshalIndent(res, "", "  ")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	text := b
	if f.output == "table" {
		text = []byte(res.Table())
	}
	if _, err := stdout.Write(text); err != nil {
		return err
	}
	if f.jsonFile == "" {
		return nil
	}
	return writeFile(f.jsonFile, os.O_TRUNC, func(w io.Writer) error { _, err := w.Write(b); return err })
}

// costVerdict is an error with exit status 2 if a connection costs more than it
// may, 3 if that cannot be told.
func costVerdict(res *conns.Result, most int) error {
	switch {
	case most == 0:
		return nil
	case res.Slope == 0:
		return &StatusError{3, errors.New("what a connection costs is not known: the target's process is not (--pid)")}
	case res.Slope > float64(most):
		return &StatusError{2, fmt.Errorf("a connection costs %.0f B, objective %d B", res.Slope, most)}
	}
	return nil
}

// resolve finds an IPv4 address.
func resolve(ctx context.Context, addr string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address %s: port: %w", addr, err)
	}
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(all[0].Unmap(), uint16(n)), nil
}
