// Package folder is the directory that a run leaves behind:
//
//	result.json      everything: package report's Document
//	result.hlog      latencies of each interval: HdrHistogram's log
//	intervals.csv    what happened in each interval
//	bench.txt        for benchstat; empty if the run is invalid
//	report.html      one page to look at
//	report.md        a summary to paste
//	scenario.yaml    the scenario, every setting with its value
//	evidence/        profiles, traces and metrics of the target
//
// The first two are the run; the others are made from them, and can be made
// again (Render) by a later version.
package folder

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/report"
	"github.com/portask/portask/loadgen/report/benchfmt"
	"github.com/portask/portask/loadgen/report/hlog"
	"github.com/portask/portask/loadgen/report/html"
)

// Names of the files.
const (
	Result    = "result.json"
	Log       = "result.hlog"
	Intervals = "intervals.csv"
	Bench     = "bench.txt"
	Page      = "report.html"
	Summary   = "report.md"
	Scenario  = "scenario.yaml"
	Evidence  = "evidence"
)

// Folder is one while its run goes on. Interval and Finish must not run at the
// same time.
type Folder struct {
	dir  string
	file *os.File
	log  *hlog.Writer
}

// Create makes the directory and begins the interval log. One that holds a
// result is refused: results are not overwritten.
func Create(dir string) (*Folder, error) {
	if _, err := os.Stat(filepath.Join(dir, Result)); err == nil {
		return nil, fmt.Errorf("%s holds a result already; it is not overwritten", dir)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(dir, Log))
	if err != nil {
		return nil, err
	}
	return &Folder{dir: dir, file: f, log: hlog.NewWriter(f)}, nil
}

// Evidence is where evidence goes.
func (f *Folder) Evidence() string { return filepath.Join(f.dir, Evidence) }

// Interval logs an interval that has just ended.
func (f *Folder) Interval(v load.Interval, h load.Histograms) {
	f.log.Begin(time.Now().Add(-time.Duration(v.End * 1e9)))
	f.log.Interval(v.Start, v.End, h)
}

// Abandon removes what a run left that came to no result.
func (f *Folder) Abandon() {
	_ = f.file.Close()
	_ = os.Remove(filepath.Join(f.dir, Log))
	_ = os.Remove(f.dir) // only if it is empty
}

// Finish writes the run and everything made from it.
func (f *Folder) Finish(d *report.Document) error {
	f.log.Begin(d.Began)
	if err := errors.Join(f.log.Close(), f.file.Close()); err != nil {
		return err
	}
	if err := write(f.dir, Result, func(w io.Writer) error { return report.WriteJSON(w, d) }); err != nil {
		return err
	}
	return Render(f.dir, d)
}

// Open reads a result: dir is a Folder's, or the file itself. in is the
// directory that the file is in.
func Open(path string) (d *report.Document, in string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, "", err
	}
	if info.IsDir() {
		path = filepath.Join(path, Result)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer file.Close()
	if d, err = report.ReadJSON(file); err != nil {
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	return d, filepath.Dir(path), nil
}

// Render makes every file of dir but the first two, from d and dir's log, if it
// is there.
func Render(dir string, d *report.Document) error { return RenderFrom(dir, dir, d) }

// RenderFrom is Render of a result in the directory in, into out, which is made.
func RenderFrom(in, out string, d *report.Document) error {
	heat, err := Heat(in)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o777); err != nil {
		return err
	}
	return errors.Join(
		write(out, Intervals, func(w io.Writer) error { return report.WriteCSV(w, d) }),
		write(out, Bench, func(w io.Writer) error { return benchfmt.Write(w, d.Result, BenchOptions(d)) }),
		write(out, Page, func(w io.Writer) error { return html.Write(w, d, html.Options{Heat: heat}) }),
		write(out, Summary, func(w io.Writer) error { return report.Markdown(w, d) }),
		write(out, Scenario, func(w io.Writer) error { _, err := io.WriteString(w, d.Resolved); return err }),
	)
}

// BenchOptions is what d says beside its result.
func BenchOptions(d *report.Document) benchfmt.Options {
	o := benchfmt.Options{Keys: d.Labels, Machine: sysmetrics.Machine{Cores: 1}}
	if e := d.Environment; e != nil {
		o.Machine, o.Commit = e.Machine, e.Loadgen
	}
	return o
}

// Heat reads the heat map of dir's log; nil if there is no log.
func Heat(dir string) (*html.Heat, error) {
	name := filepath.Join(dir, Log)
	file, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	h := html.NewHeat()
	_, err = hlog.Read(file, func(v hlog.Interval) error {
		h.Add(v.Start, v.End, v.Histograms.E2E)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return h, nil
}

// write makes a file, whole or not at all.
func write(dir, name string, to func(io.Writer) error) error {
	f, err := os.CreateTemp(dir, ".part-*")
	if err != nil {
		return err
	}
	if err := errors.Join(to(f), f.Chmod(0o644), f.Close()); err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("%s: %w", name, err)
	}
	return os.Rename(f.Name(), filepath.Join(dir, name))
}
