//go:build unix

package lab

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps a terminal's Ctrl-C from a child: it is for the driver, which
// then stops things in order.
func ownGroup(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
