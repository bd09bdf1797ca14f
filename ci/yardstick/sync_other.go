//go:build !linux

package yardstick

import "os"

func datasync(f *os.File) error { return f.Sync() }
