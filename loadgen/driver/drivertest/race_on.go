//go:build race

package drivertest

// raceEnabled: the race detector allocates.
const raceEnabled = true
