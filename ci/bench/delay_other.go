//go:build !linux

package bench

func runDelay(int) int64 { return 0 }
