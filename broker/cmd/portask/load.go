package main

import (
	"log/slog"
	"math"

	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/broker/wire"
)

// machineLoad reads how busy this machine is, for producers that want to know; see
// server.Options.Load. It is nil where the system tells nothing.
func (o *brokerOptions) machineLoad(log *slog.Logger) func() wire.Load {
	path := o.data
	if o.engine != engineDisk {
		path = ""
	}
	r, err := sysmetrics.NewLoadReader(path)
	if err != nil {
		log.Warn("producers are not told how busy the broker is", "err", err)
		return nil
	}
	return func() wire.Load {
		l := r.Read()
		return wire.Load{CPU: percent(l.CPU), Memory: percent(l.Memory), Disk: percent(l.Disk), Link: percent(l.Link)}
	}
}

// readArtefact reads the policy that producers are given; nil if there is none, or
// if it is none, which is logged.
func (o *brokerOptions) readArtefact(log *slog.Logger) []byte {
	if o.artefact == "" {
		return nil
	}
	b, err := readRegular("compression.artefact", o.artefact, adaptive.ArtefactMaxBytes)
	if err == nil {
		_, err = adaptive.Parse(b)
	}
	if err != nil {
		log.Warn("compression.artefact is not used; producers use the policy that they carry", "file", o.artefact, "err", err)
		return nil
	}
	return b
}

// percent is a share in percent, unknown if it is no number.
func percent(share float64) uint8 {
	if math.IsNaN(share) {
		return wire.LoadUnknown
	}
	return uint8(math.Round(100 * min(max(share, 0), 1)))
}
