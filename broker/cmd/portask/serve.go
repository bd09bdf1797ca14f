package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/portask/portask/broker/config"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/server"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/storage/disklog"
	"github.com/portask/portask/broker/storage/memlog"
)

// envConfig names the configuration file where --config is not given.
const envConfig = "PORTASK_CONFIG"

// launch is what `portask serve` reads its options from. It stays as it is for
// the life of the process; a reload reads the same sources again.
type launch struct {
	file  string
	flags []config.Override
	// chunkBytes is what the running broker takes outside of the Go heap at most;
	// set by serve before anything is loaded again.
	chunkBytes int64
}

// register adds --config and the flag of every setting that has one.
func (l *launch) register(f *pflag.FlagSet) {
	f.StringVar(&l.file, "config", "", "configuration file: .yaml, .json or .toml; "+envConfig+" if it is not given")
	for k := range newBrokerOptions().schema().Keys() {
		if k.Flag == "" {
			continue
		}
		flag := f.VarPF(config.FlagOf(k, &l.flags), k.Flag, "", k.Usage())
		if k.Value.Type() == "bool" {
			flag.NoOptDefVal = "true"
		}
	}
}

// load reads everything and validates it.
func (l *launch) load() (*brokerOptions, *config.Snapshot, error) {
	o := newBrokerOptions()
	snap, err := o.schema().Load(config.Sources{File: cmp.Or(l.file, os.Getenv(envConfig)), Env: os.Environ(), Flags: l.flags})
	return o, snap, err
}

func newServe(*globals) *cobra.Command {
	var l launch
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a broker",
		Long: `Run a broker until SIGTERM or SIGINT, which stop it gracefully: it takes no new work, answers what is in flight,
syncs and closes its logs, within --shutdown-timeout. A second signal ends it at once, as SIGKILL does; nothing that
was answered at "accepted" or "durable" is lost by that.

Its settings come from the file of --config, from PORTASK_* variables and from flags; the later wins. SIGHUP, or a
change of the file, reloads them: what can change in a running broker does, without touching a connection, and the rest
is named. An invalid file is refused and the old settings stay. See portask config.

Metrics, health and profiles are on an admin listener of their own, on loopback and the port above the broker's: see
docs/monitoring.md.

The broker has no authentication yet. It listens on loopback and refuses another address without --insecure.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), &l, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	l.register(cmd.Flags())
	return cmd
}

// serve runs a broker until ctx ends.
func serve(ctx context.Context, l *launch, stdout, stderr io.Writer) (err error) {
	o, snap, err := l.load()
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	level.Set(o.logLevel)
	log := o.logger(stderr, level)
	l.chunkBytes = o.chunkBytes()
	o.collect(l.chunkBytes).tell(log)
	mon, err := o.startMonitor(log) // first: it tells a broker that starts from none
	if err != nil {
		return err
	}
	if mon != nil {
		defer func() {
			if cerr := mon.Close(); err == nil {
				err = cerr
			}
		}()
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
	o.server.Engine, o.server.Logger, o.server.Version, o.server.Measure = engine, log, versionText(), mon != nil
	o.server.Load, o.server.Artefact = o.machineLoad(log), o.readArtefact(log)
	s, err := server.New(o.server)
	if err != nil {
		return err
	}
	if mon != nil {
		mon.Attach(s)
	}
	r := newReloader(l, s, mon, level, log, o, snap)
	defer r.close()
	addr := s.Addr().String()
	if o.addrFile != "" {
		if err := writeAddress(o.addrFile, addr); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	fmt.Fprintf(stdout, "portask: serving on %s\n", addr)
	log.Info("serving", "address", addr, "engine", engine.Name(), "levels", engine.Levels().String(), "version", versionText(), "config", snap.File)
	for _, note := range snap.Notes {
		log.Warn("the configuration is of an earlier version", "note", note)
	}

	settled := make(chan struct{})
	defer func() { <-settled }()
	ctx, cancelSettle := context.WithCancel(ctx)
	defer cancelSettle()
	go func() {
		defer close(settled)
		settle(ctx, func() bool { return s.Stats().Loops.Connections == 0 })
	}()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve() }()
	select {
	case err := <-ended:
		return errors.Join(err, s.Close())
	case <-ctx.Done():
	}
	timeout := r.close().shutdownTimeout
	log.Info("stopping", "timeout", timeout)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
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

func (o *brokerOptions) logger(w io.Writer, level slog.Leveler) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if o.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

func (o *brokerOptions) openEngine(log *slog.Logger) (storage.Engine, error) {
	switch o.engine {
	case engineDisk:
		o.disk.Logger = log
		return disklog.Open(vfs.OS(), o.data, o.disk)
	case engineMemory:
		return memlog.Open(o.mem)
	}
	return nil, fault.New(fault.Internal, "serve").WithField("engine").WithDetail("%q", o.engine)
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
