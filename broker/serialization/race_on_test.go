//go:build race

package serialization

// raceEnabled skips allocation budgets: the detector allocates too.
const raceEnabled = true
