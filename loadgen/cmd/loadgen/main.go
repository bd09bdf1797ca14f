// Command loadgen drives a Portask deployment over its socket and verifies
// every message. See package command for its exit statuses.
package main

import (
	"github.com/portask/portask/loadgen/command"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/driver/loopback"
	"github.com/portask/portask/loadgen/driver/portask"
)

// version is set by the linker.
var version = "unknown"

func main() {
	p := command.Program{Version: version, Drivers: []driver.Kind{portask.Kind, loopback.Kind}, More: command.PeerCommands(version)}
	p.Main()
}
