//go:build race

package id

// raceEnabled skips allocation budgets: the detector allocates too.
const raceEnabled = true
