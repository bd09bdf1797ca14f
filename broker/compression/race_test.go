//go:build race

package compression

// raceEnabled: the race detector allocates, so allocation budgets are skipped.
const raceEnabled = true
