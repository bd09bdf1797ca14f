// Package bus carries work between the event loops and the storage: to workers
// that may wait for a disk, and what came of it back to the loop that asked. A
// loop never waits for the bus, the bus never drops anything, and while nothing
// is under way no goroutine of it runs and no timer is set.
//
//	            Task.Schedule                        Task.run
//	event loop ───────────────▶ lane ┐ ┌ worker ───────────────▶ storage
//	(or worker)                 lane ┼─┤ worker                     │
//	     ▲                      lane ┘ └ …  Pool                    │
//	     └──────────────────────────── Box ◀────────────────────────┘
//
// A Task is a piece of work that exists once: the syncs of a partition, the
// request of a connection. It runs on one worker at a time, so whatever has one
// Task (a partition and a kind of work) is served in order, on any worker.
//
// A Pool runs tasks. It has lanes, which keep the order in which their tasks were
// scheduled; control lanes go before the others, and each side always leaves the
// other a worker. Workers come with the backlog, up to a bound, and go when they
// are idle.
//
// A Box is the way back: values from many goroutines to one, handed over whole.
//
// A Credit bounds what is made for each request. Who has none left is refused
// with an error that names the bound.
//
// # What is bounded, and by what
//
// A lane has no capacity to run out of: a task is queued at most once and brings
// its own place, a link. So a lane is as long as there are tasks, Schedule always
// succeeds at once, and whoever makes tasks bounds them: partitions by being
// opened, reads by the subscriptions, requests by a Credit. A Box likewise: what
// it may hold is what its senders have been granted.
//
// The queues were chosen by measurement: docs/decisions/0007-bus.md.
package bus
