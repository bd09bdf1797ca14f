package compare

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/driver/portask"
	"github.com/portask/portask/loadgen/peers/nats"
	"github.com/portask/portask/loadgen/peers/redis"
	"github.com/portask/portask/loadgen/peers/server"
)

// Target is a system set up so that an answered message survives what
// Durability says.
type Target struct {
	Name       string
	Durability driver.Durability
	setup      *setup
}

// String is how a target is given: name@durability.
func (t Target) String() string { return t.Name + "@" + string(t.Durability) }

// setup is how a system gives a durability.
type setup struct {
	ack   message.AckLevel
	kind  *driver.Kind
	start func(context.Context, server.Options) (*server.Server, error)
	// settings of the driver.
	settings func(*server.Server) map[string]string
	// levels replace what the driver says, if not nil.
	levels []driver.Level
}

// system is what can be compared.
type system struct {
	name, doc string
	gives     map[driver.Durability]*setup
}

// memory of Portask's engine in memory: enough for a run.
const portaskMemory = "4GiB"

// The systems, each with the settings its own experts would choose; see the
// drivers' packages.
var systems = []system{
	{"portask", "portask serve, its defaults; at durability memory with --engine memlog", map[driver.Durability]*setup{
		driver.Nothing: portaskSetup(message.AckNone, nil),
		driver.Memory: portaskSetup(message.AckAccepted, []driver.Level{
			{Ack: message.AckAccepted, Name: message.AckAccepted.String(), Gives: driver.Memory, How: "in the broker's memory (memlog)"},
		}, "--engine", "memlog", "--memory", portaskMemory),
		driver.OS:   portaskSetup(message.AckAccepted, nil),
		driver.Disk: portaskSetup(message.AckDurable, nil),
	}},
	{"nats-core", "NATS without JetStream", map[driver.Durability]*setup{
		driver.Nothing: natsSetup(&nats.Core, message.AckNone, false, nil),
	}},
	{"nats-jetstream", "JetStream, PublishMsgAsync", jetStreamSetups("async")},
	{"nats-jetstream-fast", "JetStream, fast-ingest batches", jetStreamSetups("fast")},
	{"redis", "Redis streams; AOF off, appendfsync no, appendfsync always", map[driver.Durability]*setup{
		driver.Memory: redisSetup(message.AckAccepted, server.NoPersistence),
		driver.OS:     redisSetup(message.AckAccepted, server.AppendOS),
		driver.Disk:   redisSetup(message.AckDurable, server.AppendAlways),
	}},
	{"redis-everysec", "Redis streams, appendfsync everysec, which promises memory", map[driver.Durability]*setup{
		driver.Memory: redisSetup(message.AckAccepted, server.AppendEverySecond),
	}},
}

func portaskSetup(ack message.AckLevel, levels []driver.Level, args ...string) *setup {
	return &setup{
		ack: ack, kind: &portask.Kind, levels: levels,
		start: func(ctx context.Context, o server.Options) (*server.Server, error) {
			return server.Portask(ctx, o, args...)
		},
	}
}

func natsSetup(kind *driver.Kind, ack message.AckLevel, syncAlways bool, settings map[string]string) *setup {
	return &setup{
		ack: ack, kind: kind,
		start: func(ctx context.Context, o server.Options) (*server.Server, error) {
			return server.NATS(ctx, o, kind == &nats.JetStream, syncAlways)
		},
		settings: func(s *server.Server) map[string]string {
			if kind == &nats.Core {
				return nil
			}
			all := map[string]string{"monitor": s.Monitor}
			for k, v := range settings {
				all[k] = v
			}
			return all
		},
	}
}

func jetStreamSetups(publish string) map[driver.Durability]*setup {
	on := func(ack message.AckLevel, syncAlways bool, storage string) *setup {
		return natsSetup(&nats.JetStream, ack, syncAlways, map[string]string{"publish": publish, "storage": storage})
	}
	all := map[driver.Durability]*setup{
		driver.Memory: on(message.AckAccepted, false, "memory"),
		driver.OS:     on(message.AckAccepted, false, "file"),
		driver.Disk:   on(message.AckDurable, true, "file"),
	}
	if publish == "async" {
		all[driver.Nothing] = on(message.AckNone, false, "file")
	}
	return all
}

func redisSetup(ack message.AckLevel, persistence string) *setup {
	return &setup{
		ack: ack, kind: &redis.Kind,
		start: func(ctx context.Context, o server.Options) (*server.Server, error) {
			return server.Redis(ctx, o, persistence)
		},
	}
}

// The durabilities, weakest first.
var durabilities = []driver.Durability{driver.Nothing, driver.Memory, driver.OS, driver.Disk}

// ParseDurability reads one.
func ParseDurability(s string) (driver.Durability, error) {
	d := driver.Durability(s)
	if !slices.Contains(durabilities, d) {
		return "", fmt.Errorf("durability %q: want one of %s", s, join(durabilities))
	}
	return d, nil
}

func join[T ~string](list []T) string {
	s := make([]string, len(list))
	for i, x := range list {
		s[i] = string(x)
	}
	return strings.Join(s, ", ")
}

// Systems lists what can be compared, a line each: name, durabilities, doc.
func Systems() []string {
	var lines []string
	for _, s := range systems {
		lines = append(lines, fmt.Sprintf("%-20s %-27s %s", s.name, join(s.durabilities()), s.doc))
	}
	return lines
}

func (s *system) durabilities() []driver.Durability {
	var ds []driver.Durability
	for _, d := range durabilities {
		if s.gives[d] != nil {
			ds = append(ds, d)
		}
	}
	return ds
}

// AllTargets are those that give a durability, Portask first.
func AllTargets(d driver.Durability) []Target {
	var ts []Target
	for i := range systems {
		if x := systems[i].gives[d]; x != nil {
			ts = append(ts, Target{systems[i].name, d, x})
		}
	}
	return ts
}

// ParseTarget reads "name" or "name@durability"; without one it is d.
func ParseTarget(s string, d driver.Durability) (Target, error) {
	name, own, ok := strings.Cut(strings.TrimSpace(s), "@")
	if ok {
		var err error
		if d, err = ParseDurability(own); err != nil {
			return Target{}, err
		}
	}
	var names []string
	for i := range systems {
		x := &systems[i]
		names = append(names, x.name)
		if x.name != name {
			continue
		}
		if x.gives[d] == nil {
			return Target{}, fmt.Errorf("target %s does not give durability %s: it gives %s", name, d, join(x.durabilities()))
		}
		return Target{name, d, x.gives[d]}, nil
	}
	return Target{}, fmt.Errorf("target %q: want one of %s", name, strings.Join(names, ", "))
}

// Start starts the target's server.
func (t Target) Start(ctx context.Context, o server.Options) (*server.Server, error) {
	s, err := t.setup.start(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", t, err)
	}
	return s, nil
}

// Open opens the target's driver, and holds what it says of itself against the
// durability that was asked for.
func (t Target) Open(ctx context.Context, s *server.Server) (driver.Driver, error) {
	o := driver.Options{Addr: s.Addr()}
	if t.setup.settings != nil {
		o.Settings = t.setup.settings(s)
	}
	d, err := t.setup.kind.Open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", t, err)
	}
	if t.setup.levels != nil {
		d = &relevelled{d, t.setup.levels}
	}
	x, err := d.Describe(ctx)
	if err == nil {
		if got, _ := x.Gives(t.setup.ack); got != t.Durability {
			err = fmt.Errorf("ack %v survives %q and not %q", t.setup.ack, got, t.Durability)
		}
	}
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("%s: %w", t, err)
	}
	return d, nil
}

// How says by which commands and settings a user drives the server with
// `loadgen run`.
func (t Target) How(s *server.Server) string {
	line := fmt.Sprintf("loadgen run --driver %s --addr %s --pid %d --ack %v", t.setup.kind.Name, s.Addr(), s.PID(), t.setup.ack)
	if t.setup.settings != nil {
		all := t.setup.settings(s)
		for _, k := range sorted(all) {
			line += fmt.Sprintf(" --driver-set %s=%s", k, all[k])
		}
	}
	return line
}

// relevelled is a driver whose target was started with settings that it does not
// see.
type relevelled struct {
	driver.Driver
	levels []driver.Level
}

func (d *relevelled) Describe(ctx context.Context) (driver.Description, error) {
	x, err := d.Driver.Describe(ctx)
	x.Levels = d.levels
	return x, err
}
