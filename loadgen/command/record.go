package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/portask/portask/loadgen/pace"
	"github.com/portask/portask/loadgen/record"
	"github.com/portask/portask/loadgen/scenario"
)

func recordCommand() *cobra.Command {
	var o record.Options
	var target, listen, most string
	var length time.Duration
	c := &cobra.Command{
		Use:   "record FILE",
		Short: "Record what producers send, by a proxy before a broker, to be replayed",
		Long: `Record what producers send, by a proxy before a broker, to be replayed.

The first line on standard output is the address to connect to. Until interrupted, or for --duration, every message that
producers send through it is noted in FILE: when, how large, of which topic (a number), and a hash of its key under a secret
that is not kept. Traffic is never held up: what the recorder cannot keep up with is left out, and counted at the end of the
trace. docs/record.md has the details.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			bytes, err := scenario.ParseSize(most)
			if err != nil {
				return fmt.Errorf("--max-bytes: %w", err)
			}
			o.MaxBytes = int64(bytes)
			file, err := os.OpenFile(args[0], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, file.Close()) }()
			r, err := record.Start(file, o)
			if err != nil {
				return err
			}
			p, err := record.Listen(listen, target, r)
			if err != nil {
				return errors.Join(err, r.Close())
			}
			fmt.Fprintln(cmd.OutOrStdout(), p.Addr())
			var end <-chan time.Time
			if length > 0 {
				t := time.NewTimer(length)
				defer t.Stop()
				end = t.C
			}
			select {
			case <-end:
			case <-cmd.Context().Done():
			}
			p.Close()
			err = r.Close()
			s := r.Stats()
			fmt.Fprintf(cmd.ErrOrStderr(), "%d messages of %d topics recorded, %d dropped, %d with mean sizes, %d sent again; %d connections not followed\n",
				s.Messages, s.Topics, s.Dropped, s.Approximate, s.Resent, s.Unread)
			return err
		},
	}
	fs := c.Flags()
	fs.StringVar(&target, "addr", defaultAddress, "address of the broker")
	fs.StringVar(&listen, "listen", "127.0.0.1:0", "address to listen on")
	fs.StringVar(&most, "max-bytes", "256MiB", "bound of FILE; what comes after it is counted as dropped")
	fs.StringVar(&o.Samples, "payloads", "", "new directory for values, every 16th up to 1,000, as files: replay --payload DIR sends such; without it no payload is kept")
	fs.DurationVar(&length, "duration", 0, "how long; 0: until interrupted")
	return c
}

func (p *Program) replayCommand() *cobra.Command {
	var f runFlags
	var speed float64
	var shape bool
	c := &cobra.Command{
		Use:   "replay FILE",
		Short: "Send again what was recorded: times, sizes, keys, topics",
		Long: `Send again what was recorded: times, sizes, keys and topics are the trace's; values are made from --payload.

It is a run like any other (loadgen run), of one phase whose arrival is the trace, and takes the same flags. With
--shape-only only the times are the trace's.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := replayScenario(args[0], speed, shape)
			if err != nil {
				return err
			}
			f.scenario.text = text
			s, err := f.scenario.open("replay.json", cmd.Flags())
			if err != nil {
				return err
			}
			return f.run(cmd.Context(), p, s, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f.target.add(p, c)
	f.scenario.add(c.Flags())
	fs := c.Flags()
	fs.Float64Var(&speed, "speed", 1, "how much faster than recorded, 0.01 to 1000")
	fs.BoolVar(&shape, "shape-only", false, "only the times of the trace; sizes and keys as --size and --set keys.count=N say")
	f.outputFlags.add(fs)
	return c
}

// replayTopicsMax are made; of more, several recorded ones share one.
const replayTopicsMax = 64

// replayScenario is that of a run that replays a trace, as a scenario file.
func replayScenario(name string, speed float64, shape bool) ([]byte, error) {
	if !(speed >= 0.01 && speed <= 1000) {
		return nil, fmt.Errorf("--speed %v: want 0.01 to 1000", speed)
	}
	t, err := pace.OpenTrace(name)
	if err != nil {
		return nil, err
	}
	if name, err = filepath.Abs(name); err != nil {
		return nil, err
	}
	// A little longer than the trace: its last message is due within.
	length := time.Duration(float64(t.Span())/speed) + 10*time.Millisecond
	phase := map[string]any{"name": "replay", "duration": length.String(), "arrival": "trace", "file": name, "speed": speed}
	if shape {
		phase["shape_only"] = true
	}
	s := map[string]any{"version": scenario.Version, "name": "replay", "phases": []any{phase}}
	if n := min(t.Topics(), replayTopicsMax); n > 1 && !shape {
		var topics []any
		for i := range n {
			topics = append(topics, map[string]any{"name": fmt.Sprintf("replay-%d", i+1)})
		}
		s["topics"] = topics
	}
	return json.Marshal(s)
}
