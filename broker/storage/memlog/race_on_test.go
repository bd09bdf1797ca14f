//go:build race

package memlog

const raceEnabled = true
