package main

import (
	"io"

	"github.com/portask/portask/broker/config"
	"github.com/portask/portask/broker/config/document"
)

// profile is a configuration that is shipped: configs/*.yaml are written from
// these, and `portask config init` writes them anywhere.
type profile struct {
	name string
	head []string
	set  []choice // none: every setting with its default
}

// choice is a setting of a profile, with the reason for its value.
type choice struct{ key, value, why string }

var profiles = []profile{
	{name: "default", head: []string{
		"Portask: every setting with its default, fast and safe on a machine of any size.",
		"",
		"A setting may be left out; what a flag or a PORTASK_* variable says goes before this file. Settings marked \"Live\"",
		"take effect in a running broker, at SIGHUP or when this file changes; the others at its next start.",
		"Check with: portask config check FILE",
	}},
	{name: "dev", head: []string{
		"Portask for development: says what it does, takes little, keeps little, and meets its limits early.",
		"Everything that is not here has its default; see config.yaml.",
	}, set: []choice{
		{"server.shutdown_timeout", "5s", "Nobody waits half a minute for a restart."},
		{"network.max_connections", "1000", "A client that leaks connections shows here, not in production."},
		{"network.slow_consumer", "10s", "A consumer that hangs in the debugger is let go; raise it to debug one."},
		{"storage.directory", "portask-dev-data", "Apart from other data, to be thrown away."},
		{"storage.disklog.spare_segments", "none", "No disk space for segments that nobody may ever use."},
		{"storage.disklog.first_segment", "64KiB", "Many small topics come and go."},
		{"topics.retention", "1d", "What is older is not missed."},
		{"topics.retention_size", "256MiB", "Of a partition: the disk is shared with everything else."},
		{"topics.segment", "4MiB", "Small segments roll often and follow the retention closely, so that both are seen at work."},
		{"topics.retention_interval", "1s", "What expires goes at once."},
		{"performance.event_loops", "2", "Leaves the cores to what is being developed, and still has two loops to find races between."},
		{"performance.produce_memory", "8MiB", "Back-pressure begins early, so that producers meet it in tests."},
		{"performance.producer_memory", "1MiB", "The same for one producer."},
		{"performance.tail_memory", "4MiB", "Consumers that lag a little read from disk, as they may in production."},
		{"performance.memory_limit", "256MiB", "The garbage collector works harder before the machine notices."},
		{"monitoring.mutex_profile", "100", "Waits for locks show in /debug/pprof/mutex; in production they would cost."},
		{"monitoring.block_profile", "100us", "What goroutines wait for shows in /debug/pprof/block."},
		{"monitoring.flight_recorder", "16MiB", "When something was slow a moment ago, /debug/flight has the trace of it."},
		{"limits.batch", "1MiB", "Large batches are found while they can still be changed."},
		{"limits.message", "256KiB", "Large messages too."},
		{"limits.decompressed", "8MiB", "The same, decompressed."},
		{"logging.level", "debug", "Every connection and why it ended."},
	}},
	{name: "prod", head: []string{
		"Portask on a machine of its own: 8 cores, 16 GiB, a local NVMe disk. It takes what the machine has.",
		"Everything that is not here has its default; see config.yaml. Measure with your own load before and after.",
		"The broker has no authentication yet: it serves loopback, or a network that you trust with --insecure.",
	}, set: []choice{
		{"storage.directory", "/var/lib/portask", "A file system of its own, ext4 or xfs: nobody else fills it or waits for its syncs."},
		{"storage.disklog.open_segments", "4096", "Consumers of history do not wait for files to be opened. Raise LimitNOFILE with it."},
		{"storage.commit.workers", "16", "An NVMe disk syncs many files at once; partitions do not wait for each other's. It takes more partitions than cores to show."},
		{"topics.retention_size", "64GiB", "Of a partition: the disk must hold partitions times this, and a tenth of it free."},
		{"performance.produce_memory", "1GiB", "256 producers with all the credit they may have. It is taken only while they use it."},
		{"performance.tail_memory", "128MiB", "Consumers may lag by an eighth of a second at 1 GB/s and still be served from memory: producer and a consumer that lags by up to 384 MiB carried 1.2 times as much as with the default on a calm machine of two cores, 2.3 times on a busy one. More is not better: up to 256 MiB costs nothing, at 512 MiB the broker spends a seventh more CPU on each message, since what it reads into is no longer in the processor's caches."},
		{"logging.format", "json", "Read by programs."},
	}},
}

// writerOf writes a profile.
func writerOf(name string, f document.Format) (func(io.Writer) error, error) {
	for _, p := range profiles {
		if p.name == name {
			return p.writer(f)
		}
	}
	return nil, usagef("--profile %q: want default, dev or prod", name)
}

func (p *profile) writer(f document.Format) (func(io.Writer) error, error) {
	o := newBrokerOptions()
	o.gcPercent, o.memoryLimit = 100, autoMemory // whatever this process's environment says
	schema := o.schema()
	var entries []config.Entry
	var values []config.Override
	for _, c := range p.set {
		values = append(values, config.Override{Path: c.key, Name: "profile " + p.name, Text: c.value})
		entries = append(entries, config.Entry{Path: c.key, Comment: c.why})
	}
	if _, err := schema.Load(config.Sources{Flags: values}); err != nil {
		return nil, err
	}
	return func(w io.Writer) error { return schema.Write(w, f, p.head, entries) }, nil
}
