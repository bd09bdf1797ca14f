package flow

import (
	"errors"
	"fmt"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
)

// Can is what a system offers, for Check. A reason that is empty means that it
// does.
type Can struct {
	Name        string
	Levels      []driver.Level
	NoLevel     string           // why a stronger level than those is missing
	NoNone      string           // why the level none is
	Visible     message.AckLevel // what a message has reached when it is consumed
	NoKeys      string
	NoRetention string
	NoExisting  string
	NoGroups    string
	NoQueues    string
}

// Check holds what a run needs against what the system can do.
func (c *Can) Check(n driver.Needs) error {
	var errs []error
	refuse := func(why, format string, args ...any) {
		errs = append(errs, &driver.Unsupported{Driver: c.Name, What: fmt.Sprintf(format, args...), Why: why})
	}
	switch n.Mode {
	case driver.Stream:
	case driver.Group:
		refuse(c.NoGroups, "delivery mode %s", n.Mode)
	case driver.Queue:
		refuse(c.NoQueues, "delivery mode %s", n.Mode)
	default:
		refuse("there is no such mode", "delivery mode %q", n.Mode)
	}
	offered := false
	for _, l := range c.Levels {
		offered = offered || l.Ack == n.Ack
	}
	switch {
	case offered:
	case n.Ack == message.AckNone:
		refuse(c.NoNone, "ack level %v", n.Ack)
	default:
		refuse(c.NoLevel, "ack level %v", n.Ack)
	}
	if n.Visibility > max(c.Visible, message.AckAccepted) {
		refuse(c.NoLevel, "visibility %v", n.Visibility)
	}
	if !n.Compression.Auto && n.Compression.Policy.Strategy != compression.Never {
		refuse("its client does not compress", "compression")
	}
	if n.Keys && c.NoKeys != "" {
		refuse(c.NoKeys, "keys")
	}
	if n.Retention && c.NoRetention != "" {
		refuse(c.NoRetention, "retention")
	}
	if n.Existing && c.NoExisting != "" {
		refuse(c.NoExisting, "a topic that exists")
	}
	return errors.Join(errs...)
}
