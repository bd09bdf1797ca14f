// Package fault makes the faults of a scenario happen while it runs: on the
// network between the clients and the target, which then goes through a Proxy
// on the loopback interface; on the target's process, if loadgen started it
// (Server); and on the consumers, which take nothing for a while.
//
// Stage holds what there is to be broken, and Stage.Play breaks it on schedule
// and mends it again, whatever happens.
package fault
