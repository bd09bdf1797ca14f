//go:build race

package message

// raceEnabled skips allocation budgets: the detector allocates too.
const raceEnabled = true
