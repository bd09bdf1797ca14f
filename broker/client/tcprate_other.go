//go:build !linux

package client

import (
	"net"
	"time"
)

// tcpState is what the kernel knows of a connection: nothing, on this system.
type tcpState struct {
	ok         bool
	rate       float64
	appLimited bool
	acked      uint64
	busy       time.Duration
}

func readTCP(net.Conn) tcpState { return tcpState{} }
