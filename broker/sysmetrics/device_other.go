//go:build !linux

package sysmetrics

func device(string) string { return "" }

func descriptorLimit() int64 { return 0 }
