// Package profiles takes CPU, heap, mutex, block and goroutine profiles of the
// shipped commands in named scenarios, keeps them below profiles/ with their
// provenance, and makes of them the default.pgo that the build of each command
// reads.
//
// A profile that is kept names functions and files of modules, never a
// directory of the machine that took it; see clean.
package profiles

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/ci/internal/jsonfile"
	"github.com/portask/portask/ci/lab"
)

// Scenario is a load under which a command is profiled.
type Scenario struct {
	Name string
	// Of is the command whose profiles are kept: portask or loadgen.
	Of string
	// Ack, where it is set, is the level of acknowledgement at which the lean
	// clients saturate a broker; Args are then nil.
	Ack string
	// Args of `loadgen run`, without those that say where results go.
	Args []string
	// Seconds of the CPU profile.
	Seconds int
}

// What all runs of loadgen have.
func load(more ...string) []string {
	return append([]string{"--size", "1KiB", "--partitions", "4", "--payload", "json", "--ack", "accepted"}, more...)
}

// Scenarios are what the commands are optimised for: the broker as busy as the
// leanest clients can make it, at both levels of acknowledgement; with the
// small batches of many producers that wait for each answer, and with batches
// that arrive compressed; and the generator at a rate that it holds.
var Scenarios = []Scenario{
	{Name: "accepted", Of: "portask", Ack: "accepted", Seconds: 12},
	{Name: "durable", Of: "portask", Ack: "durable", Seconds: 12},
	{Name: "small", Of: "portask", Seconds: 10, Args: load("--mode", "closed", "--producers", "32", "--consumers", "2", "--in-flight", "2", "--compression", "never")},
	{Name: "compressed", Of: "portask", Seconds: 10, Args: load("--mode", "closed", "--producers", "8", "--consumers", "2", "--in-flight", "128", "--compression", "always:lz4")},
	{Name: rate, Of: "loadgen", Seconds: 30, Args: load("--rate", "60000", "--producers", "4", "--consumers", "2", "--compression", "threshold:zstd")},
}

// rate is the scenario of the generator.
const rate = "rate"

// Command is a shipped command with its main package.
type Command struct{ Name, Main string }

// Commands that are built with a profile of their own.
var Commands = []Command{
	{"portask", "broker/cmd/portask"},
	{"loadgen", "loadgen/cmd/loadgen"},
}

// Default is the place, below the repository, from which `go build` takes the
// command's profile (-pgo=auto).
func (c Command) Default() string { return path.Join(c.Main, "default.pgo") }

// Kept is the place of the same bytes among the profiles.
func (c Command) Kept() string { return path.Join("profiles/pgo", c.Name+".pgo") }

// PGOBytesMax is the most that a default.pgo may have: each clone holds it, and
// each build reads it.
const PGOBytesMax = 1 << 20

// File is one line of the manifest.
type File struct {
	Path   string `json:"path"` // below the repository
	SHA256 string `json:"sha256"`
	Bytes  int    `json:"bytes"`
	// Of is the command, Scenarios those it was taken in.
	Of        string   `json:"of"`
	Scenarios []string `json:"scenarios"`
	// Seconds that were profiled, Samples and CPUSeconds that came of it; 0 for
	// other than CPU profiles.
	Seconds    float64 `json:"seconds,omitempty"`
	Samples    int64   `json:"samples,omitempty"`
	CPUSeconds float64 `json:"cpu_seconds,omitempty"`
}

// Run is what a scenario was and what came of it.
type Run struct {
	Scenario string   `json:"scenario"`
	Command  []string `json:"command"`
	// Valid: the generator's latencies may be believed; on a busy machine they
	// may not, which does not touch the profile.
	Valid bool `json:"valid"`
	// The rest is what loadgen says of the run.
	MsgPerSec     float64 `json:"msg_per_s"`
	Messages      int64   `json:"messages"`
	TargetCPU     float64 `json:"target_cpu_s_per_million"`
	GeneratorCPUs float64 `json:"generator_cpu_s"`
	Steal         float64 `json:"steal"`
	Load1         float64 `json:"load1"`
}

// Manifest is profiles/MANIFEST.json.
type Manifest struct {
	Version int `json:"version"` // 1
	// Commit is of the binaries that were profiled, Go what built them.
	Commit  string             `json:"commit"`
	Go      string             `json:"go"`
	When    time.Time          `json:"when"`
	Machine sysmetrics.Machine `json:"machine"`
	Runs    []Run              `json:"runs"`
	Files   []File             `json:"files"`
}

// ManifestPath is the manifest's place below the repository.
const ManifestPath = "profiles/MANIFEST.json"

// ReadManifest reads the manifest of the repository at root.
func ReadManifest(root string) (*Manifest, error) {
	name := filepath.Join(root, ManifestPath)
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	m := new(Manifest)
	if err := jsonfile.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if m.Version != 1 {
		return nil, fmt.Errorf("%s: version %d, want 1", name, m.Version)
	}
	return m, nil
}

// Check compares the files below root with the manifest: each is there with
// the bytes it names, no other profile is, and each command's default.pgo has
// the bytes of the kept one. All violations are reported.
func (m *Manifest) Check(root string) error {
	var bad []error
	listed := map[string]bool{ManifestPath: true}
	for _, f := range m.Files {
		listed[f.Path] = true
		b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(f.Path)))
		switch {
		case err != nil:
			bad = append(bad, err)
		case digest(b) != f.SHA256 || len(b) != f.Bytes:
			bad = append(bad, fmt.Errorf("%s: %d bytes with sum %.12s…, the manifest says %d and %.12s…", f.Path, len(b), digest(b), f.Bytes, f.SHA256))
		}
	}
	for _, c := range Commands {
		a, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(c.Kept())))
		b, err2 := os.ReadFile(filepath.Join(root, filepath.FromSlash(c.Default())))
		if err := errors.Join(err, err2); err != nil {
			bad = append(bad, err)
		} else if !bytes.Equal(a, b) {
			bad = append(bad, fmt.Errorf("%s and %s differ", c.Kept(), c.Default()))
		}
		if len(b) > PGOBytesMax {
			bad = append(bad, fmt.Errorf("%s: %d bytes, more than %d", c.Default(), len(b), PGOBytesMax))
		}
	}
	err := filepath.WalkDir(filepath.Join(root, "profiles"), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if rel = filepath.ToSlash(rel); err == nil && !listed[rel] && path.Base(rel) != "README.md" && path.Base(rel) != "gain.txt" {
			bad = append(bad, fmt.Errorf("%s: not in the manifest", rel))
		}
		return err
	})
	return errors.Join(append(bad, err)...)
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// clean takes out of p what says where it was taken: the binary's path, build
// identifiers, comments, directories in front of source files. Binaries built
// with -trimpath have module paths in place of directories already.
func clean(p *profile.Profile) {
	p.Comments = nil
	p.DocURL = ""
	p.DropFrames, p.KeepFrames = "", ""
	for _, m := range p.Mapping {
		m.File, m.BuildID = path.Base(filepath.ToSlash(m.File)), ""
	}
	for _, f := range p.Function {
		if path.IsAbs(filepath.ToSlash(f.Filename)) {
			f.Filename = path.Base(filepath.ToSlash(f.Filename))
		}
	}
}

// forPGO keeps of CPU profiles what the compiler reads, stacks and counts, and
// adds them up.
func forPGO(cpu []*profile.Profile) (*profile.Profile, error) {
	var all []*profile.Profile
	for _, p := range cpu {
		p = p.Copy()
		for _, s := range p.Sample {
			s.Label, s.NumLabel, s.NumUnit = nil, nil, nil
		}
		all = append(all, p)
	}
	merged, err := profile.Merge(all)
	if err != nil {
		return nil, err
	}
	merged.TimeNanos = 0 // the bytes depend on samples alone
	return merged.Compact(), nil
}

// samples returns the count and the CPU seconds of a CPU profile.
func samples(p *profile.Profile) (n int64, seconds float64) {
	for _, s := range p.Sample {
		n += s.Value[0]
		seconds += float64(s.Value[len(s.Value)-1]) / 1e9
	}
	return n, seconds
}

func encode(p *profile.Profile) ([]byte, error) {
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Taker takes profiles.
type Taker struct {
	Root   string // of the repository
	Lab    *lab.Lab
	Commit string // of the lab's binaries
	// Progress is told what goes on; nil: nobody is.
	Progress func(string)
}

func (t *Taker) say(format string, args ...any) {
	if t.Progress != nil {
		t.Progress(fmt.Sprintf(format, args...))
	}
}

// Take runs the scenarios one after another and replaces what is below
// profiles/ and both default.pgo. Nothing is replaced unless all runs ended
// without losing a message. It needs the go command, for the lists of top functions.
func (t *Taker) Take(ctx context.Context, scenarios []Scenario) (*Manifest, error) {
	m := &Manifest{Version: 1, Commit: t.Commit, When: time.Now().UTC().Truncate(time.Second), Machine: sysmetrics.ThisMachine()}
	m.Go = m.Machine.Go
	files := map[string][]byte{}
	cpu := map[string][]*profile.Profile{}
	add := func(f File, b []byte) {
		f.SHA256, f.Bytes = digest(b), len(b)
		m.Files = append(m.Files, f)
		files[f.Path] = b
	}
	for _, s := range scenarios {
		kept, run, err := t.scenario(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("scenario %s: %w", s.Name, err)
		}
		m.Runs = append(m.Runs, run)
		for _, kind := range slices.Sorted(maps.Keys(kept)) {
			p := kept[kind]
			b, err := encode(p)
			if err != nil {
				return nil, err
			}
			f := File{Path: path.Join("profiles/baseline", s.Name, kind+".pb.gz"), Of: s.Of, Scenarios: []string{s.Name}}
			if kind == "cpu" {
				f.Seconds = float64(p.DurationNanos) / 1e9
				f.Samples, f.CPUSeconds = samples(p)
				cpu[s.Of] = append(cpu[s.Of], p)
				top, err := topList(ctx, b)
				if err != nil {
					return nil, err
				}
				add(File{Path: path.Join("profiles/top", s.Name+".txt"), Of: s.Of, Scenarios: f.Scenarios}, top)
			}
			add(f, b)
		}
	}
	for _, c := range Commands {
		p, err := forPGO(cpu[c.Name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		b, err := encode(p)
		if err != nil {
			return nil, err
		}
		f := File{Path: c.Kept(), Of: c.Name}
		f.Samples, f.CPUSeconds = samples(p)
		f.Seconds = float64(p.DurationNanos) / 1e9
		for _, s := range scenarios {
			if s.Of == c.Name {
				f.Scenarios = append(f.Scenarios, s.Name)
			}
		}
		add(f, b)
		files[c.Default()] = b
	}
	slices.SortFunc(m.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return m, t.replace(m, files)
}

// replace writes everything; the directories of generated files are emptied
// first.
func (t *Taker) replace(m *Manifest, files map[string][]byte) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	files[ManifestPath] = append(b, '\n')
	for _, dir := range []string{"profiles/baseline", "profiles/top", "profiles/pgo"} {
		if err := os.RemoveAll(filepath.Join(t.Root, dir)); err != nil {
			return err
		}
	}
	for name, b := range files {
		name = filepath.Join(t.Root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(name, b, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// scenario runs one and returns its profiles by kind, cleaned.
func (t *Taker) scenario(ctx context.Context, s Scenario) (map[string]*profile.Profile, Run, error) {
	run := Run{Scenario: s.Name}
	if s.Ack != "" {
		return t.saturated(ctx, s)
	}
	dir, err := os.MkdirTemp("", "portask-profile-")
	if err != nil {
		return nil, run, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "out")
	args := append([]string{"run", "--plain", "--quiet", "--scenario", s.Name, "--seed", "1", "--warmup", "2s"}, s.Args...)
	public := append([]string{"loadgen"}, args...)
	length := s.Seconds
	if s.Of == "portask" {
		length = 4*s.Seconds + 2
		args = append(args, "--profile", strconv.Itoa(s.Seconds)+"s")
	} else {
		args = append(args, "--profile", "0", "--cpuprofile", filepath.Join(dir, "cpu.pb.gz"))
	}
	args = append(args, "--duration", strconv.Itoa(length)+"s", "--out", out, "--start-broker", t.Lab.Portask)
	run.Command = append(public, "--duration", strconv.Itoa(length)+"s", "--start-broker", "bin/portask")
	t.say("%s: %d s of load, profiling %s", s.Name, length, s.Of)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(length)*time.Second+2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.Lab.Loadgen, args...)
	cmd.Env = append(os.Environ(), "PORTASK_MONITORING_MUTEX_PROFILE=100", "PORTASK_MONITORING_BLOCK_PROFILE=100us")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends the broker it started
	cmd.WaitDelay = 30 * time.Second
	b, err := cmd.CombinedOutput()
	run.Valid = err == nil
	if err != nil && cmd.ProcessState.ExitCode() != 3 { // 3: latencies mean nothing; where time went is known all the same
		return nil, run, fmt.Errorf("loadgen run: %w: %s", err, bytes.TrimSpace(b))
	}
	if err := run.read(filepath.Join(out, "result.json")); err != nil {
		return nil, run, err
	}
	if run.MsgPerSec == 0 { // of an invalid run no rates are told
		run.MsgPerSec = float64(run.Messages) / float64(length)
	}
	kept := map[string]*profile.Profile{}
	from := map[string]string{"cpu": filepath.Join(dir, "cpu.pb.gz")}
	if s.Of == "portask" {
		for _, kind := range []string{"cpu", "heap", "mutex", "block", "goroutine"} {
			from[kind] = filepath.Join(out, "evidence", kind+".pb.gz")
		}
	}
	for kind, name := range from {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, run, err
		}
		if kept[kind], err = parse(kind, b); err != nil {
			return nil, run, err
		}
	}
	return kept, run, nil
}

// saturated is a scenario of the lean clients.
func (t *Taker) saturated(ctx context.Context, s Scenario) (map[string]*profile.Profile, Run, error) {
	t.say("%s: %d s of saturation, profiling %s", s.Name, s.Seconds, s.Of)
	v := lab.Variant{Name: "portask", Ack: s.Ack, Visibility: s.Ack}
	got, r, err := t.Lab.ProfileBroker(ctx, v, lab.Load{}, time.Duration(s.Seconds)*time.Second)
	if err != nil {
		return nil, Run{}, err
	}
	run := Run{Scenario: s.Name, Command: []string{"loadgen", "lean", "--ack", s.Ack, "--batch", "64", "--size", "1024"}, Valid: true,
		Messages: r.Messages, MsgPerSec: r.MsgPerSec, TargetCPU: r.ServerCPU, GeneratorCPUs: (r.ProducerCPU + r.ConsumerCPU) * float64(r.Messages) / 1e6, Steal: r.Steal}
	kept := map[string]*profile.Profile{}
	for kind, b := range got {
		if kept[kind], err = parse(kind, b); err != nil {
			return nil, run, err
		}
	}
	return kept, run, nil
}

// parse reads a profile and cleans it.
func parse(kind string, b []byte) (*profile.Profile, error) {
	p, err := profile.ParseData(b)
	if err != nil {
		return nil, fmt.Errorf("profile %s: %w", kind, err)
	}
	if kind == "cpu" && len(p.Sample) == 0 {
		return nil, errors.New("the CPU profile has no samples")
	}
	clean(p)
	return p, nil
}

// read takes the figures of a run from loadgen's result.
func (r *Run) read(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var d struct {
		Counts   struct{ Delivered int64 }
		Measured struct {
			Total struct {
				Rate float64 `json:"delivered_per_s"`
			}
		}
		Generator struct {
			CPU   float64 `json:"cpu_s"`
			Steal float64 `json:"steal"`
		}
		Target struct {
			CPU float64 `json:"cpu_s_per_million"`
		}
		Environment struct {
			Load1 float64 `json:"load1"`
		}
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	r.Messages, r.MsgPerSec, r.TargetCPU = d.Counts.Delivered, d.Measured.Total.Rate, d.Target.CPU
	r.GeneratorCPUs, r.Steal, r.Load1 = d.Generator.CPU, d.Generator.Steal, d.Environment.Load1
	return nil
}

// topList is the table of the functions with most samples, as `go tool pprof`
// prints it.
func topList(ctx context.Context, b []byte) ([]byte, error) {
	f, err := os.CreateTemp("", "portask-profile-*.pb.gz")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute) // the first use builds pprof
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-nodecount=40", f.Name()).Output()
	if err != nil {
		return nil, fmt.Errorf("go tool pprof: %w", err)
	}
	return out, nil
}
