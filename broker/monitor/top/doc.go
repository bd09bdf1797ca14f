// Package top turns successive monitor.Reports into what `portask top` shows: the
// rates between two of them (Rates), what is wrong in words (Warnings), and a
// frame of a given size (View.Frame). It reads no clock, opens nothing and knows
// no terminal: the same input gives the same lines, so its tests compare frames.
//
// A Report comes from a server that may be anybody. Clean bounds and sanitises
// its texts; what the package prints has no control characters whatever the
// Report held.
//
// Nothing here is safe for concurrent use.
package top
