//go:build !unix

package launch

import "errors"

// Freeze is not possible on this system.
func (b *Broker) Freeze() error { return errors.ErrUnsupported }

// Thaw is not possible on this system.
func (b *Broker) Thaw() error { return errors.ErrUnsupported }
