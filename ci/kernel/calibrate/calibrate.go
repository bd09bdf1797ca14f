// Package calibrate holds small frozen workloads that depend on nothing but the
// toolchain. The laboratory runs the same build of them as both sides of a
// comparison: what it finds between equals is its own error. They are ordinary
// benchmarks (`go test -bench . ./kernel/calibrate`), and Source carries them to
// wherever the laboratory works, since the repository under test may be any.
//
// Their code does not change: a comparison over months rests on that
// (calibrate_test.go holds a hash).
package calibrate

import _ "embed"

// Source is the file of the benchmarks, a package of its own without imports
// beyond the standard library.
//
//go:embed kernels_test.go
var Source string
