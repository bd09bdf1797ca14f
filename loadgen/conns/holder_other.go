//go:build !linux

package conns

import (
	"context"
	"time"

	"github.com/portask/portask/broker/fault"
)

// Holder keeps connections, on Linux.
type Holder struct {
	o      Options
	system system
}

// Open refuses: the loop is Linux's epoll.
func Open(Options, int) (*Holder, error) {
	return nil, fault.New(fault.NotSupported, "hold connections").WithDetail("takes Linux: its epoll, and its loopback addresses")
}

// Hold does nothing: there is no Holder.
func (h *Holder) Hold(context.Context, int) error { return fault.NotSupported }

// Serve does nothing: there is no Holder.
func (h *Holder) Serve(context.Context, time.Duration) error { return fault.NotSupported }

// Stats are none.
func (h *Holder) Stats() Stats { return Stats{} }

// RecordBytes are none.
func (h *Holder) RecordBytes() int64 { return 0 }

// Close does nothing: there is no Holder.
func (h *Holder) Close() error { return nil }

// Listener knows no process.
func Listener(uint16) int { return 0 }
