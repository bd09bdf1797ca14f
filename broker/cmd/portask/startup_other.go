//go:build !linux

package main

import "errors"

func forgetProgram() error { return errors.ErrUnsupported }
