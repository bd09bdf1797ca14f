//go:build !linux

package evloop

import (
	"errors"
	"net"
)

const defaultEngine = EngineStd

func newEpoll(net.Listener, *Options) ([]netio, error) {
	return nil, errors.New(`evloop: engine "epoll" exists on Linux only`)
}

// close ends a socket that no loop took.
func (s socket) close() { s.nc.Close() }
