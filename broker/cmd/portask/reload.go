package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/portask/portask/broker/config"
	"github.com/portask/portask/broker/monitor"
	"github.com/portask/portask/broker/server"
)

// reloader keeps a running broker in step with its configuration: at SIGHUP, and
// when the file has changed, it loads everything anew, gives the broker what it
// can take while it runs, and names the rest.
type reloader struct {
	launch *launch
	server *server.Server
	mon    *monitor.Monitor // nil: off
	level  *slog.LevelVar
	log    *slog.Logger

	stop context.CancelFunc
	wg   sync.WaitGroup

	// Owned by run, readable after close.
	opts    *brokerOptions
	running *config.Snapshot // what the broker runs with
}

// newReloader begins to listen; close ends it. From here on SIGHUP does not end
// the process.
func newReloader(l *launch, s *server.Server, mon *monitor.Monitor, level *slog.LevelVar, log *slog.Logger, o *brokerOptions, snap *config.Snapshot) *reloader {
	r := &reloader{launch: l, server: s, mon: mon, level: level, log: log, opts: o, running: snap}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	changed := make(chan struct{}, 1)
	if snap.File != "" {
		r.wg.Go(func() {
			err := config.Watch(ctx, snap.File, snap.Content, func() {
				select {
				case changed <- struct{}{}:
				default: // one is on its way and will see this change too
				}
			})
			if err != nil {
				log.Warn("changes of the configuration are not noticed; SIGHUP reloads it", "err", err)
			}
		})
	}
	r.wg.Go(func() {
		defer signal.Stop(hangup)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
				r.reload("SIGHUP")
			case <-changed:
				r.reload("the file has changed")
			}
		}
	})
	return r
}

// close returns the options that are in force, after everything of r has ended.
func (r *reloader) close() *brokerOptions {
	r.stop()
	r.wg.Wait()
	return r.opts
}

func (r *reloader) reload(why string) {
	o, snap, err := r.launch.load()
	if err == nil {
		err = r.apply(o)
	}
	if err != nil {
		r.log.Error("configuration refused, the old one stays", "why", why, "file", r.running.File)
		var all *config.Error
		if !errors.As(err, &all) {
			r.log.Error("configuration", "problem", err.Error())
			return
		}
		for _, p := range all.Problems {
			r.log.Error("configuration", "problem", p.String())
		}
		return
	}
	for _, note := range snap.Notes {
		r.log.Warn("the configuration is of an earlier version", "note", note)
	}
	live := 0
	changes := config.Diff(r.running, snap)
	for _, c := range changes {
		if c.Live {
			live++
			r.log.Info("setting changed", "key", c.Path, "from", c.Old, "to", c.New, "origin", c.Origin.String())
		} else {
			r.log.Warn("setting needs a restart", "key", c.Path, "runs", c.Old, "configured", c.New, "origin", c.Origin.String())
		}
	}
	r.opts, r.running = o, r.running.Reloaded(snap)
	r.log.Info("configuration reloaded", "why", why, "file", snap.File, "changed", live, "need_restart", len(changes)-live)
}

// apply gives the broker what it takes while it runs. After an error nothing has
// changed.
func (r *reloader) apply(o *brokerOptions) error {
	var watch monitor.Options
	if r.mon != nil {
		var err error
		if watch, err = o.monitor.options(); err != nil {
			return err
		}
	}
	o.server.Artefact = o.readArtefact(r.log)
	old := r.level.Level()
	r.level.Set(o.logLevel) // the server looks at it
	if err := r.server.Reload(o.server); err != nil {
		r.level.Set(old)
		return err
	}
	o.collect(r.launch.chunkBytes)
	if r.mon != nil {
		return r.mon.Reload(watch) // it was checked with the rest: nothing is half done
	}
	return nil
}
