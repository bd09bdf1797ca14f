//go:build !race

package payload

// raceEnabled tells tests that count allocations.
const raceEnabled = false
