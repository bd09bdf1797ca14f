//go:build race

package wire

// raceEnabled skips allocation budgets: the detector allocates too.
const raceEnabled = true
