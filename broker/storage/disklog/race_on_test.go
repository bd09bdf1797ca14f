//go:build race

package disklog

const raceEnabled = true
