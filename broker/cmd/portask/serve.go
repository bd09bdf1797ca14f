package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/storage/disklog"
	"github.com/portask/portask/broker/storage/memlog"
)

// serveFlags are those of `portask serve`; sizes in bytes.
type serveFlags struct {
	listen      string
	insecure    bool
	data        string
	engine      string
	memory      int64
	addrFile    string
	nodeID      string
	loops       int
	eventEngine string

	maxConns         int
	produceMemory    int64
	tailMemory       int64
	slowConsumer     time.Duration
	maxBatch         int64
	maxMessage       int64
	partitions       uint32
	retention        time.Duration
	retentionBytes   int64
	segment          int64
	shutdownTimeout  time.Duration
	logLevel, logFmt string
}

func newServe(*globals) *cobra.Command {
	limits := message.DefaultLimits()
	o := serveFlags{
		memory:         256 << 20,
		produceMemory:  64 << 20,
		tailMemory:     16 << 20,
		maxBatch:       int64(limits.BatchBytes),
		maxMessage:     int64(limits.MessageBytes),
		retentionBytes: -1,
		segment:        64 << 20,
	}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a broker",
		Long: `Run a broker until SIGTERM or SIGINT, which stop it gracefully: it takes no new work, answers what is in flight,
syncs and closes its logs, within --shutdown-timeout. A second signal ends it at once, as SIGKILL does; nothing that
was answered at "accepted" or "durable" is lost by that.

The broker has no authentication yet. It listens on loopback and refuses another address without --insecure.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), &o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", defaultAddress, "TCP address; port 0 takes a free one")
	f.BoolVar(&o.insecure, "insecure", false, "serve an address that is not loopback, to anybody who can reach it")
	f.StringVar(&o.data, "data", "portask-data", "data directory of the disklog engine")
	f.StringVar(&o.engine, "engine", "disklog", "storage engine: disklog (one directory) or memlog (memory, gone at the end)")
	f.Var(sizeFlag{n: &o.memory}, "memory", "what the memlog engine may hold")
	f.StringVar(&o.addrFile, "addr-file", "", "write the address that is served to this file")
	f.StringVar(&o.nodeID, "node-id", "node-1", "name of this broker in metadata")
	f.IntVar(&o.loops, "loops", 0, "event loops; 0 is one per core")
	f.StringVar(&o.eventEngine, "event-engine", "", "epoll (Linux) or std; chosen by itself if empty")
	f.IntVar(&o.maxConns, "max-connections", 1_000_000, "connections at once")
	f.Var(sizeFlag{n: &o.produceMemory}, "produce-memory", "sum of the credit given to producers")
	f.Var(sizeFlag{n: &o.tailMemory}, "tail-memory", "recent batches kept for consumers at the tail")
	f.DurationVar(&o.slowConsumer, "slow-consumer", 30*time.Second, "a connection that reads nothing for this long is closed")
	f.Var(sizeFlag{n: &o.maxBatch}, "max-batch", "largest batch")
	f.Var(sizeFlag{n: &o.maxMessage}, "max-message", "largest message")
	f.Uint32Var(&o.partitions, "default-partitions", 1, "partitions of a new topic that names none")
	f.DurationVar(&o.retention, "default-retention", 7*24*time.Hour, "age at which a new topic's segments are removed; 0 is never")
	f.Var(sizeFlag{n: &o.retentionBytes, unlimited: true}, "default-retention-bytes", "size of a new topic's partition above which its oldest segments are removed")
	f.Var(sizeFlag{n: &o.segment}, "default-segment", "segment size of a new topic")
	f.DurationVar(&o.shutdownTimeout, "shutdown-timeout", 30*time.Second, "how long a graceful stop may take")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.logFmt, "log-format", "text", "text or json")
	return cmd
}

// serve runs a broker until ctx ends.
func serve(ctx context.Context, o *serveFlags, stdout, stderr io.Writer) (err error) {
	log, err := o.logger(stderr)
	if err != nil {
		return err
	}
	opts, err := o.options(log)
	if err != nil {
		return err
	}
	engine, err := o.openEngine(log)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := engine.Close(); err == nil {
			err = cerr
		}
	}()
	opts.Engine = engine
	s, err := server.New(opts)
	if err != nil {
		return err
	}
	addr := s.Addr().String()
	if o.addrFile != "" {
		if err := writeAddress(o.addrFile, addr); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	fmt.Fprintf(stdout, "portask: serving on %s\n", addr)
	log.Info("serving", "address", addr, "engine", engine.Name(), "levels", engine.Levels().String(), "version", versionText())

	ended := make(chan error, 1)
	go func() { ended <- s.Serve() }()
	select {
	case err := <-ended:
		return errors.Join(err, s.Close())
	case <-ctx.Done():
	}
	log.Info("stopping", "timeout", o.shutdownTimeout)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.shutdownTimeout)
	defer cancel()
	err = s.Shutdown(stop)
	<-ended // its error tells nothing new: a signal may even come before Serve has begun
	if err != nil {
		log.Warn("graceful stop ended early", "err", err)
		return err
	}
	log.Info("stopped")
	return nil
}

func (o *serveFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return nil, usagef("--log-level %q: want debug, info, warn or error", o.logLevel)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch o.logFmt {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, usagef("--log-format %q: want text or json", o.logFmt)
}

func (o *serveFlags) openEngine(log *slog.Logger) (storage.Engine, error) {
	switch o.engine {
	case "disklog":
		return disklog.Open(vfs.OS(), o.data, disklog.Options{Logger: log})
	case "memlog":
		return memlog.Open(memlog.Options{MaxBytes: o.memory})
	}
	return nil, fault.New(fault.Invalid, "serve").WithField("engine").WithDetail("%q: want disklog or memlog", o.engine)
}

// writeAddress puts the address where others look for it, whole or not at all:
// whoever polls for the file must not read half of it.
func writeAddress(name, addr string) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".portask-addr-")
	if err != nil {
		return fmt.Errorf("--addr-file: %w", err)
	}
	_, err = tmp.WriteString(addr + "\n")
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return fmt.Errorf("--addr-file: %w", err)
	}
	return nil
}
