// Package command is the command line of loadgen. A program with more drivers
// than Portask's (module loadgen/peers) is this package and its own drivers.
//
// Exit status: 0 all well; 1 usage, configuration or an unreachable target;
// 2 an objective was missed; 3 the run says nothing (the generator was the
// limit); 4 data violation: an acknowledged message was lost, or one arrived
// that is not what was sent.
package command

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/portask/portask/loadgen/driver"
)

// defaultAddress is where `portask serve` listens.
const defaultAddress = "127.0.0.1:7474"

// Program is a loadgen.
type Program struct {
	Version string
	// Drivers are what it can drive; the first is the default.
	Drivers []driver.Kind
	// More commands than those of this package.
	More []*cobra.Command
}

// platformCommands are those that exist on this operating system only.
var platformCommands []func() *cobra.Command

// Main runs the program with the process's arguments and ends the process.
func (p *Program) Main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	c := p.Command()
	endProfile := profiled(c)
	err := c.ExecuteContext(ctx)
	endProfile()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
	}
	os.Exit(ExitStatus(err))
}

// Command is the root of the command line.
func (p *Program) Command() *cobra.Command {
	c := &cobra.Command{
		Use:           "loadgen",
		Short:         "Load a Portask broker and verify every message",
		Version:       p.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.AddCommand(p.runCommand(), p.searchCommand(), p.soakCommand(), p.agentCommand(), proxyCommand(), p.connsCommand(), validateCommand(), scenariosCommand(), reportCommand(), demoCommand(), selftestCommand(), recordCommand(), p.replayCommand(), payloadsCommand())
	for _, f := range platformCommands {
		c.AddCommand(f())
	}
	c.AddCommand(p.More...)
	return c
}

// driver finds a Kind.
func (p *Program) driver(name string) (driver.Kind, error) {
	var names []string
	for _, k := range p.Drivers {
		if k.Name == name {
			return k, nil
		}
		names = append(names, k.Name)
	}
	return driver.Kind{}, fmt.Errorf("--driver %q: want one of %s", name, strings.Join(names, ", "))
}

// targetFlags say what is driven.
type targetFlags struct {
	driver, addr string
	settings     []string
	pid          int
	broker       string // to be started
	brokerArgs   []string
	realTime     bool
	decisions    io.Writer // of adaptive compression; nil: not recorded
}

func (t *targetFlags) add(p *Program, c *cobra.Command) {
	var docs []string
	for _, k := range p.Drivers {
		docs = append(docs, k.Name+" ("+k.Doc+")")
	}
	fs := c.Flags()
	fs.StringVar(&t.driver, "driver", p.Drivers[0].Name, "system to drive: "+strings.Join(docs, "; "))
	fs.StringVar(&t.addr, "addr", "", "address of the target (default: where the system listens, "+p.Drivers[0].Addr+" for "+p.Drivers[0].Name+")")
	fs.StringArrayVar(&t.settings, "driver-set", nil, "setting of the driver, key=value")
	fs.IntVar(&t.pid, "pid", 0, "process of the target, for its CPU and memory")
	fs.StringVar(&t.broker, "start-broker", "", "portask to start on a free port with new data, and to end with the command; what faults of the process need")
	fs.BoolVar(&t.realTime, "real-time", false, "all of loadgen at a real-time priority while an open loop without faults runs: for a target on the same machine, at rates far below its limits")
	fs.StringArrayVar(&t.brokerArgs, "broker-arg", nil, "argument of portask serve, with --start-broker")
}

// open opens a driver of kind k at addr.
func (t *targetFlags) open(ctx context.Context, k driver.Kind, addr string) (driver.Driver, error) {
	settings, err := t.driverSettings()
	if err != nil {
		return nil, err
	}
	return k.Open(ctx, driver.Options{Addr: addr, Settings: settings, Decisions: t.decisions, DecisionBytes: decisionBytes})
}

func (t *targetFlags) driverSettings() (map[string]string, error) {
	all := map[string]string{}
	for _, s := range t.settings {
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fmt.Errorf("--driver-set %q: want key=value", s)
		}
		all[key] = value
	}
	return all, nil
}
