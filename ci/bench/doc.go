// Package bench runs the benchmarks of two revisions of a Go repository
// against each other, in turns, and hands over what it saw as sample.Round
// values. It judges nothing.
//
// The repository needs no code for it. Both revisions are copied to a temporary
// directory and their test programs are built with an overlay that adds a
// worker to package testing: `go test -c -overlay`. Such a program runs the
// benchmark it was started for up to its first iteration as ever, with the
// package's TestMain and the parents of a sub-benchmark around it, and then,
// instead of looking for a number of iterations, runs as many as it is told,
// again and again, and answers with times and allocations of the timed part.
//
// The order of work: [Prepare] makes the copies, builds, and finds the
// benchmarks; [Session.Round] is one round of one of them; [Session.Close] ends
// what still runs and removes the copies. One goroutine at a time uses a
// Session: what is measured must not be disturbed by the same laboratory.
//
//	s, err := bench.Prepare(ctx, plan, log)
//	defer s.Close()
//	for _, subject := range s.Benches() {
//		round, err := s.Round(ctx, subject, sample.Screen)
//	}
//
// A package that does not compile on a side, a benchmark that fails or hangs:
// these are [Problem]s of the session and errors of a round, which the caller
// may survive. A benchmark that fails, panics, exits or hangs in its first
// iteration is a Problem by its name, with the program's last words, and the
// package's others are compared; later than that, it is the error of its round.
// Every child has a process group of its own and a time limit; a context that
// ends kills it.
package bench
