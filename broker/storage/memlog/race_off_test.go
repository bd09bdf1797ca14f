//go:build !race

package memlog

const raceEnabled = false
