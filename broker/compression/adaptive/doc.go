// Package adaptive decides how a producer compresses each of its batches:
// whether, with which algorithm and at which level. It weighs the time of the
// encoder, at the price that CPU has under the present load, against bytes on
// the link, to each of the subscribers, and on the disk.
//
// # The cost
//
// The cost of sending a batch by an arm, in nanoseconds of an idle processor:
//
//	(encode + base) · price  +  out · (fan-out / link + disk)  +  decode
//	price = 1 / (1 - load), at most 10
//
// encode, decode and out are what the arm is expected to need for this body;
// everything else comes from [Conditions]. High latency of a slow link thereby
// makes compression stronger, not weaker.
//
// # What is known, and from where
//
// An [Artefact], trained on measurements (perflab policy train) and embedded, is
// a set of profiles: what each arm needed for each size of bodies of one kind.
// A [Decider], one for each topic of a producer, finds out which profiles the
// bodies of its topic are like: by [Features], cheap signs of a sample, and by
// what the arms it tried needed (Observe). Arms not yet tried are predicted from
// those profiles, by a kernel regression on what was observed; arms that were,
// by their own averages too. An arm is tried if what would be gained by knowing
// it, over as many batches as the topic has had, is more than the trial costs
// (expected improvement), within a budget. When the bodies change, which a
// detector (CUSUM) sees in the sizes of the outputs and in the features, what was
// learnt of the arms is forgotten and the profiles decide again.
//
// # Bounds
//
//   - Against raw: a decider keeps account of what it spent and of what sending
//     everything raw would have cost. An arm is used only while the account,
//     with the arm doing its worst, stays within 3 % and an advance of one batch.
//   - An arm that is not expected to meet the latency budget, the memory or, with
//     batches waiting, the pace of the link, is not used.
//   - Switching needs a gain of 2 %.
//   - Time: [BenchmarkDecide] tells; 0 allocations.
//
// # Determinism
//
// Decisions are a pure function of the artefact, the options and the calls, in
// their order: there is no clock, no random source, no iteration over maps, and
// no result of floating point that depends on the processor (see num.go). The
// same calls therefore give the same decisions on any machine; [Recorder] keeps
// them and [Replay] makes them again.
//
// A Decider is not safe for concurrent use: the producer holds a mutex around
// its calls, each of which takes well under a microsecond. Compression happens
// outside of it; results may come back late, in any order, or never.
package adaptive
