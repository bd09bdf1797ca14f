//go:build !unix

package server

import "syscall"

// setReceiveBuffer does nothing: the tests then fill a larger buffer.
func setReceiveBuffer(syscall.RawConn, int) error { return nil }
