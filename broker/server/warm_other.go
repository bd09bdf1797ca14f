//go:build !linux

package server

import "github.com/portask/portask/broker/storage"

// warm does nothing where the loops do not use sendfile: they read.
func warm(_ *storage.Run, scratch []byte) []byte { return scratch }
