// Command loadgen-peers is loadgen with the drivers of other systems, and the
// commands that need them: peer and compare. It is a program of its own so that
// users of loadgen do not build those systems.
package main

import (
	"github.com/portask/portask/loadgen/command"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/driver/loopback"
	"github.com/portask/portask/loadgen/driver/portask"
	peers "github.com/portask/portask/loadgen/peers/command"
	"github.com/portask/portask/loadgen/peers/nats"
	"github.com/portask/portask/loadgen/peers/redis"
)

// version is set by the linker.
var version = "unknown"

func main() {
	p := command.Program{
		Version: version,
		Drivers: []driver.Kind{portask.Kind, loopback.Kind, nats.Core, nats.JetStream, redis.Kind},
		More:    peers.Commands(version),
	}
	p.Main()
}
