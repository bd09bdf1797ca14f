package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/fleet"
	"github.com/portask/portask/loadgen/scenario"
)

func (p *Program) agentCommand() *cobra.Command {
	var listen, addrFile, token string
	c := &cobra.Command{
		Use:   "agent",
		Short: "Run shares of other loadgens' runs (loadgen run --agents)",
		Long: `Run shares of other loadgens' runs (loadgen run --agents), one at a time.

Both sides prove that they know the token: the content of --token FILE, or of the variable ` + fleet.TokenVariable + `. It is not sent, but
nothing is encrypted. Who knows it can have any address loaded from here, so an agent listens for this machine only unless
--listen names another address.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			secret, err := fleet.Token(token)
			if err != nil {
				return err
			}
			if host, _, err := net.SplitHostPort(listen); err != nil || host == "" {
				return fmt.Errorf("--listen %q: want host:port; 0.0.0.0 for all addresses", listen)
			}
			ln, err := net.Listen("tcp", listen)
			if err != nil {
				return err
			}
			addr := ln.Addr().String()
			if addrFile != "" {
				if err := os.WriteFile(addrFile, []byte(addr+"\n"), 0o666); err != nil {
					return errors.Join(err, ln.Close())
				}
			}
			out := newProgress(cmd.OutOrStdout())
			out.event("agent listens on " + addr)
			a := &fleet.Agent{Token: secret, Version: p.Version, Open: p.openDriver, Event: out.event}
			return a.Serve(cmd.Context(), ln)
		},
	}
	fs := c.Flags()
	fs.StringVar(&listen, "listen", fleet.DefaultAddress, "address for coordinators; port 0: any")
	fs.StringVar(&addrFile, "addr-file", "", "file for the address, once it listens")
	addToken(fs, &token)
	return c
}

func addToken(fs *pflag.FlagSet, token *string) {
	fs.StringVar(token, "token", "", fmt.Sprintf("file with the token that agents and their coordinator share, %d bytes or more (default: the variable %s)", fleet.TokenBytesMin, fleet.TokenVariable))
}

// openDriver opens one of the program's drivers by name.
func (p *Program) openDriver(ctx context.Context, name string, o driver.Options) (driver.Driver, error) {
	k, err := p.driver(name)
	if err != nil {
		return nil, err
	}
	return k.Open(ctx, o)
}

// agentFlags say who shares a run.
type agentFlags struct {
	agents []string
	token  string
}

func (f *agentFlags) add(fs *pflag.FlagSet) {
	fs.StringSliceVar(&f.agents, "agents", nil, "agents (loadgen agent) that share the run, host:port,...; --addr is then where they find the target")
	addToken(fs, &f.token)
}

// runShared is run with agents.
func (f *runFlags) runShared(ctx context.Context, p *Program, s *scenario.Scenario, stdout, stderr io.Writer) (err error) {
	if err := f.check(ctx); err != nil {
		return err
	}
	if f.target.broker != "" {
		return errors.New("--start-broker excludes --agents: want the --addr at which agents find the target")
	}
	token, err := fleet.Token(f.token)
	if err != nil {
		return err
	}
	if _, err := fleet.Split(s, len(f.agents)); err != nil { // before anything is opened
		return err
	}
	screen := f.screen(fmt.Sprintf("%s on %s, ack %s, %d agents", s.Name, f.target.driver, s.Producers.Ack, len(f.agents)), stderr)
	defer screen.End()
	g, err := f.target.rig(ctx, p, s, screen.Event)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close(err)) }()
	settings, err := f.target.driverSettings()
	if err != nil {
		return err
	}
	rec, err := f.record(ctx, p, s, g)
	if err != nil {
		return err
	}
	res, err := fleet.Run(ctx, fleet.Options{
		Agents: f.agents, Token: token, Scenario: s, Driver: g.driver, Target: driver.Options{Addr: g.addr, Settings: settings},
		Keep: f.keep, Progress: screen.Update, OnInterval: rec.interval, Event: screen.Event,
	})
	screen.End()
	if res == nil {
		rec.abandon()
		return err
	}
	if e := rec.finish(res, stdout); e != nil {
		return errors.Join(e, err)
	}
	return errors.Join(Verdict(res), err)
}
