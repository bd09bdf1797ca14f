//go:build unix

package launch

import "syscall"

// Freeze stops the process (SIGSTOP): it does nothing, keeps its connections,
// and the kernel answers for it. Thaw continues it. A frozen broker can be
// killed, not stopped.
func (b *Broker) Freeze() error { return b.cmd.Process.Signal(syscall.SIGSTOP) }

// Thaw: see Freeze.
func (b *Broker) Thaw() error { return b.cmd.Process.Signal(syscall.SIGCONT) }
