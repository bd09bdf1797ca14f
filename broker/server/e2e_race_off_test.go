//go:build !race

package server

// raceEnabled: the detector allocates and is slow, budgets and sizes follow it.
const raceEnabled = false
