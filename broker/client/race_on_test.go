//go:build race

package client

// raceEnabled: the race detector allocates, so allocation budgets are skipped.
const raceEnabled = true
