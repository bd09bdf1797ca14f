// Package wire is the protocol between clients and the broker: the preface, the
// frame header, and one struct with Append and Parse for the payload of every
// opcode. PROTOCOL.md beside this file is the specification; the boxes over the
// encoders repeat it and golden frames in testdata hold both.
//
// Append writes a payload at the end of a slice and returns it. Parse reads one
// payload that fills src to its last byte; its strings are copies, its byte
// slices are views of src, and a struct that is parsed into again may reuse its
// own slices. A failed Parse leaves the struct in an unspecified state. Errors are
// *fault.Error and name opcode, field and limit:
//
//   - fault.ProtocolViolation: the bytes are not this payload (short, trailing
//     bytes, not UTF-8, a reserved field that is not zero, a count above its
//     limit). The connection is to be closed.
//   - fault.Invalid, fault.TooLarge, fault.NotSupported: the payload can be read
//     but asks for what may not be. The request is refused, the connection stays.
//
// Every length and count is checked against its limit and against the bytes
// present before memory is taken for it: parsing n bytes never allocates more
// than a small multiple of n.
//
// The package does no I/O and keeps no state; functions may be called
// concurrently on different values. What a frame means, when it may be sent and
// who spends which credit is decided by its users, server and client.
package wire

import (
	"time"

	"github.com/portask/portask/broker/message"
)

// Version is the protocol version this package speaks, the only one so far.
const Version = 1

// Limits of the protocol. A peer may be stricter, never more generous.
const (
	// DefaultMaxFrame bounds a whole frame, its length field included. It takes
	// a batch of the largest size (4 MiB) with room for a delivery of several.
	DefaultMaxFrame = 8 << 20
	// MinMaxFrame is the smallest maximum a peer may announce: the description of
	// a topic with all its partitions fits, whatever their leaders' names.
	MinMaxFrame = 2 << 20
	// MaxMaxFrame is the largest maximum a peer may announce.
	MaxMaxFrame = 64 << 20

	// A connection that has not got its HELLO_OK yet may send frames of
	// PreAuthFrameBytes, PreAuthBytes in all with the preface, within
	// PreAuthTimeout of its opening.
	PreAuthFrameBytes = 4 << 10
	PreAuthBytes      = 16 << 10
	PreAuthTimeout    = 5 * time.Second

	// Heartbeats. A peer that sent nothing for HeartbeatMisses intervals is dead.
	DefaultHeartbeat = 10 * time.Second
	MinHeartbeat     = time.Second
	MaxHeartbeat     = 10 * time.Minute
	HeartbeatMisses  = 3

	// MaxCreditBytes bounds one grant and the sum of what is granted and not
	// spent: a peer's counter is stopped there, so no sum overflows.
	MaxCreditBytes = 1 << 40
	// MaxOptionsBytes bounds an option section without its own length field.
	MaxOptionsBytes = 1<<16 - 1

	MaxTopics     = 10_000 // in a METADATA request or answer
	MaxPartitions = 4096   // of a topic
	MaxRuns       = 1024   // in a DELIVER
	MaxRanges     = 4095   // in a DELIVER: what an option's 16-bit length holds at 16 bytes each
	MaxMechanisms = 16     // in HELLO_OK
	MaxOpcodes    = 512    // in HELLO_OK
	MaxChain      = 16     // causes in an ERROR
	MaxDetails    = 16     // details in an ERROR

	MaxDictionaryBytes = 1 << 20 // of a compression dictionary
	MaxDictionaries    = 32      // in Dictionaries

	MaxArms     = 16 // in a REPORT
	MaxSwitches = 16 // in a REPORT
)

// Limits of strings, in bytes.
const (
	MaxTopicBytes     = message.MaxTopicBytes
	MaxNameBytes      = 256  // client name, field name of an error, node address
	MaxVersionBytes   = 64   // version of a client or broker
	MaxIDBytes        = 64   // cluster and node id
	MaxEngineBytes    = 32   // name of a storage engine
	MaxMechanismBytes = 32   // name of an authentication mechanism
	MaxTextBytes      = 4096 // message of an error
	MaxCauseBytes     = 1024 // text of one cause of an error
	MaxDetailKeyBytes = 64   // key of one detail of an error
	MaxArtefactBytes  = 64   // artefact of a report
	MaxNoteBytes      = 256  // note of a report
)

// NegotiateHeartbeat returns the interval in milliseconds for a peer that asked
// for wanted: 0 asks for the default, anything else is brought between
// MinHeartbeat and MaxHeartbeat.
func NegotiateHeartbeat(wanted uint32) uint32 {
	if wanted == 0 {
		return uint32(DefaultHeartbeat.Milliseconds())
	}
	return min(max(wanted, uint32(MinHeartbeat.Milliseconds())), uint32(MaxHeartbeat.Milliseconds()))
}

// NegotiateMaxFrame returns the largest frame of a connection: the smaller of
// what the two sides announced, 0 meaning "no limit of my own".
func NegotiateMaxFrame(mine, theirs uint32) uint32 {
	switch {
	case mine == 0 && theirs == 0:
		return DefaultMaxFrame
	case mine == 0:
		return theirs
	case theirs == 0:
		return mine
	}
	return min(mine, theirs)
}

// CheckTopicName reports whether name may be a topic's: 1 to 249 characters of
// a-z, A-Z, 0-9, dot, underscore and hyphen, but not "." or "..". The error is
// fault.Invalid or fault.TooLarge with field "topic". It is package message's
// rule, see message.CheckTopicName.
func CheckTopicName(name string) error { return message.CheckTopicName("topic name", name) }
