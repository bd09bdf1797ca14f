//go:build !linux

package main

import (
	"context"
	"errors"
)

func runKernel(context.Context, []string) error {
	return errors.New("kernel: needs Linux (sendfile from a file to a socket by position)")
}
