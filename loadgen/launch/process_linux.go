package launch

import (
	"os/exec"
	"syscall"
)

// setProcess keeps a terminal's Ctrl-C from the broker, which this program then
// stops in order, and ends the broker with this program.
func setProcess(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
