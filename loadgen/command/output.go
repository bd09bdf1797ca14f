package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/loadgen/evidence"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/report"
	"github.com/portask/portask/loadgen/report/benchfmt"
	"github.com/portask/portask/loadgen/report/folder"
	"github.com/portask/portask/loadgen/report/html"
	"github.com/portask/portask/loadgen/report/live"
	"github.com/portask/portask/loadgen/scenario"
)

// outputFlags say what is kept of a run, and what is shown while it goes on.
type outputFlags struct {
	output              string
	dir                 string
	jsonFile, benchFile string
	labels              []string
	quiet, plain, keep  bool
	admin               string
	profile             time.Duration
}

func (f *outputFlags) add(fs *pflag.FlagSet) {
	fs.StringVarP(&f.output, "output", "o", "table", "table or json, on standard output")
	fs.StringVar(&f.dir, "out", "", "directory for everything: result.json, result.hlog, intervals.csv, bench.txt, report.html, report.md, scenario.yaml, evidence")
	fs.StringVar(&f.jsonFile, "json", "", "file for the result as JSON")
	fs.StringVar(&f.benchFile, "bench", "", "file for the result in the Go benchmark format; appended to")
	fs.StringArrayVar(&f.labels, "label", nil, "configuration line for the benchmark format, key=value")
	fs.BoolVar(&f.keep, "keep", false, "do not delete the topics that the run created")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "no progress")
	fs.BoolVar(&f.plain, "plain", false, "progress as a line a second, also on a terminal")
	fs.StringVar(&f.admin, "admin", "", "admin listener of the broker, host:port (of --start-broker: its own): what it does each second; with --out also profiles at steady state, and a trace when an objective is breached")
	fs.DurationVar(&f.profile, "profile", 5*time.Second, "length of the CPU profile at steady state, at most a quarter of the longest measured stretch without faults; 0: none")
}

// check says what is wrong before anything is started.
func (f *outputFlags) check(ctx context.Context) error {
	if f.output != "table" && f.output != "json" {
		return fmt.Errorf("--output %q: want table or json", f.output)
	}
	if _, err := f.keys(); err != nil {
		return err
	}
	if err := errors.Join(Writable("--json", f.jsonFile), Writable("--bench", f.benchFile)); err != nil {
		return err
	}
	if f.admin == "" {
		return nil
	}
	if err := evidence.Check(ctx, f.admin); err != nil {
		return fmt.Errorf("--admin: %w", err)
	}
	return nil
}

// Writable is an error if the file that a flag names could not be written after
// the run; an empty name is none. It leaves no file behind, and none changed.
func Writable(flag, name string) error {
	if name == "" {
		return nil
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	switch {
	case err == nil:
		err = errors.Join(file.Close(), os.Remove(name))
	case errors.Is(err, fs.ErrExist):
		if file, err = os.OpenFile(name, os.O_WRONLY, 0); err == nil {
			err = file.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	return nil
}

func (f *outputFlags) keys() (map[string]string, error) {
	if len(f.labels) == 0 {
		return nil, nil
	}
	keys := map[string]string{}
	for _, l := range f.labels {
		k, v, ok := strings.Cut(l, "=")
		if !ok {
			return nil, fmt.Errorf("--label %q: want key=value", l)
		}
		if err := benchfmt.CheckKey(k); err != nil {
			return nil, fmt.Errorf("--label: %w", err)
		}
		keys[k] = v
	}
	return keys, nil
}

// screen shows progress on stderr.
func (f *outputFlags) screen(title string, stderr io.Writer) *live.Display {
	o := live.Options{Title: title, Plain: f.plain, NoColor: os.Getenv("NO_COLOR") != ""}
	if file, ok := stderr.(*os.File); ok && os.Getenv("TERM") != "dumb" {
		o.Size = live.Terminal(file)
	}
	if f.quiet {
		stderr = io.Discard
		o.Size = nil
	}
	return live.New(stderr, o)
}

// recording is what is gathered of a run while it goes on.
type recording struct {
	f        *outputFlags
	version  string
	folder   *folder.Folder
	evidence *evidence.Collector
	machine  *evidence.Environment
}

// record prepares, before the run; whoever calls it calls finish or abandon.
func (f *outputFlags) record(ctx context.Context, p *Program, s *scenario.Scenario, g *rig) (_ *recording, err error) {
	pid := g.pid
	admin, err := g.admin(f.admin)
	if err != nil {
		return nil, err
	}
	x := &recording{f: f, version: p.Version}
	if f.dir != "" {
		if x.folder, err = folder.Create(f.dir); err != nil {
			return nil, fmt.Errorf("--out: %w", err)
		}
		x.machine = evidence.Describe(p.Version)
	}
	if f.dir == "" && f.jsonFile == "" && f.output != "json" || admin == "" && pid == 0 {
		return x, nil // nobody to show it to, or nothing to see
	}
	o := evidence.Options{Admin: admin, PID: pid, Scenario: s, Profile: f.profile}
	if g.stage.Server != nil {
		o.Find = func() string {
			now, _ := g.admin("") // what cannot be found is not known
			return now
		}
	}
	if f.profile == 0 {
		o.Profile = -1
	}
	if x.folder != nil {
		o.Dir = x.folder.Evidence()
	}
	if x.evidence, err = evidence.Start(ctx, o); err != nil {
		x.abandon()
		return nil, fmt.Errorf("--admin: %w", err)
	}
	return x, nil
}

// interval is for load.Config.OnInterval.
func (x *recording) interval(v load.Interval, h load.Histograms) {
	if x.folder != nil {
		x.folder.Interval(v, h)
	}
	if x.evidence != nil {
		x.evidence.Interval(v)
	}
}

// abandon: there is no result.
func (x *recording) abandon() {
	if x.evidence != nil {
		x.evidence.Stop(time.Now())
	}
	if x.folder != nil {
		x.folder.Abandon()
	}
}

// finish writes what was asked for.
func (x *recording) finish(res *load.Result, stdout io.Writer) error {
	f := x.f
	keys, err := f.keys()
	if err != nil {
		return err
	}
	d := &report.Document{Result: res, Labels: keys, Environment: x.machine}
	if x.evidence != nil {
		d.Evidence = x.evidence.Stop(res.Began)
	}
	if f.output == "json" {
		err = report.WriteJSON(stdout, d)
	} else {
		err = report.Table(stdout, res)
	}
	if err != nil {
		return err
	}
	if x.folder != nil {
		if err := x.folder.Finish(d); err != nil {
			return err
		}
		if f.output != "json" {
			fmt.Fprintf(stdout, "%-26s %s\n", "report", filepath.Join(f.dir, folder.Page))
		}
	}
	if f.jsonFile != "" {
		if err := writeFile(f.jsonFile, os.O_TRUNC, func(w io.Writer) error { return report.WriteJSON(w, d) }); err != nil {
			return err
		}
	}
	if f.benchFile == "" {
		return nil
	}
	o := benchfmt.Options{Commit: x.version, Machine: sysmetrics.ThisMachine(), Keys: keys}
	return writeFile(f.benchFile, os.O_APPEND, func(w io.Writer) error { return benchfmt.Write(w, res, o) })
}

func reportCommand() *cobra.Command {
	var out, format string
	c := &cobra.Command{
		Use:   "report DIR | FILE",
		Short: "Make the reports of a run again, from its directory or result.json",
		Long: `Make the reports of a run again, from its directory (run --out) or a result.json; or the page of a search (search --out).

Without --format it writes intervals.csv, bench.txt, report.html, report.md and scenario.yaml, beside the result or into
--out. With --format it writes one of them on standard output. The exit status is that of the run.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			w := cmd.OutOrStdout()
			if to := cmp.Or(out, args[0]); format == "" {
				if _, found, err := folder.RenderSearch(args[0], to); found {
					if err == nil {
						fmt.Fprintln(w, filepath.Join(to, folder.Page))
					}
					return err
				}
			}
			d, in, err := folder.Open(args[0])
			if err != nil {
				return err
			}
			switch format {
			case "":
				if out == "" {
					out = in
				}
				if err := folder.RenderFrom(in, out, d); err != nil {
					return err
				}
				fmt.Fprintln(w, filepath.Join(out, folder.Page))
			case "table":
				err = report.Table(w, d.Result)
			case "json":
				err = report.WriteJSON(w, d)
			case "csv":
				err = report.WriteCSV(w, d)
			case "md":
				err = report.Markdown(w, d)
			case "bench":
				err = benchfmt.Write(w, d.Result, folder.BenchOptions(d))
			case "html":
				var heat *html.Heat
				if heat, err = folder.Heat(in); err == nil {
					err = html.Write(w, d, html.Options{Heat: heat})
				}
			default:
				err = fmt.Errorf("--format %q: want table, json, csv, md, bench or html", format)
			}
			if err != nil {
				return err
			}
			return Verdict(d.Result)
		},
	}
	c.Flags().StringVar(&out, "out", "", "directory to write into")
	c.Flags().StringVar(&format, "format", "", "one report on standard output: table, json, csv, md, bench or html")
	return c
}
