package main

import (
	"fmt"
	"io"
	"os"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/broker/monitor"
)

// policy makes the client's options of the flags that are about adaptive
// compression. done is to be called after the client was closed.
func (o *produceFlags) policy(stderr io.Writer) (opts []client.Option, done func() error, err error) {
	done = func() error { return nil }
	if o.artefact != "" {
		b, err := readRegular("--artefact", o.artefact, adaptive.ArtefactMaxBytes)
		if err != nil {
			return nil, done, err
		}
		if _, err := adaptive.Parse(b); err != nil {
			fmt.Fprintf(stderr, "--artefact %s is not used, the built-in policy is: %v\n", o.artefact, err)
		}
		opts = append(opts, client.WithPolicyArtefact(b))
	}
	if o.decisions != "" {
		f, err := os.Create(o.decisions)
		if err != nil {
			return nil, done, fmt.Errorf("--decision-log: %w", err)
		}
		done = f.Close
		opts = append(opts, client.WithDecisionLog(f, 0))
	}
	return opts, done, nil
}

// say prints what p chose, as the broker would show it.
func (o *produceFlags) say(p *client.Producer, stderr io.Writer) {
	c, ok := p.Explain()
	if !ok {
		fmt.Fprintln(stderr, "nothing was chosen: the producer is not adaptive, or sent nothing")
		return
	}
	x := monitor.ProducerChoices{Strategy: p.Stats().Strategy.String(), Chosen: c.Chosen.String(), Reason: c.Why.String(), Why: monitor.Why(c.Why),
		Batches: c.Batches, Switches: c.Switches, Artefact: c.Artefact, Note: c.Note}
	if r := c.Conditions.CPU; r.Source != adaptive.Unknown {
		n := int(100 * r.Value)
		x.CPUPercent = &n
	}
	if r := c.Conditions.Link; r.Source != adaptive.Unknown {
		x.LinkBytes = uint64(r.Value)
	}
	if r := c.Conditions.FanOut; r.Source != adaptive.Unknown {
		x.FanOut = int(r.Value)
	}
	for _, u := range c.Uses {
		x.Arms = append(x.Arms, monitor.ArmChoice{Arm: u.Arm.String(), Batches: u.Batches, BytesIn: u.In, BytesOut: u.Out, Discarded: u.Discarded,
			EncodeNs: uint64(u.Encode), PredictedNs: uint64(u.Predicted), ObservedNs: uint64(u.Observed)})
	}
	_ = x.WriteText(stderr) // standard error cannot be complained about elsewhere
}
