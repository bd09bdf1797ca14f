package fault

import "strconv"

// Code names one kind of failure. It is an error by itself, so it serves as the
// sentinel to compare with: errors.Is(err, fault.NotFound). Comparing allocates
// nothing.
//
// The numbers travel on the wire and never change meaning; a retired number is
// not given out again. They stay below 256, where Go boxes a small integer into
// an interface without allocating.
type Code uint16

// None is the absence of a failure: what CodeOf(nil) returns and what a reply
// carries for a part that succeeded.
const None Code = 0

// Failures that any component may have.
const (
	Internal          Code = 1
	Invalid           Code = 2
	TooLarge          Code = 3
	NotFound          Code = 4
	Exists            Code = 5
	Timeout           Code = 6
	Canceled          Code = 7
	Full              Code = 8
	Corrupted         Code = 9
	Closed            Code = 10
	NotSupported      Code = 11
	ResourceExhausted Code = 12
	ShuttingDown      Code = 13
	OutOfRange        Code = 14
	Expired           Code = 15
	MemoryExhausted   Code = 16
)

// Failures of a connection and of the protocol spoken on it.
const (
	ConnectionLost     Code = 32
	VersionUnsupported Code = 33
	ProtocolViolation  Code = 34
	HandleUnknown      Code = 35
	CreditExceeded     Code = 36
	SlowPeer           Code = 37
)

// Failures of identity and permission.
const (
	Unauthorized Code = 64
)

// Failures of producing.
const (
	Fenced            Code = 80
	OutOfSequence     Code = 81
	DuplicateSequence Code = 82
	LevelUnavailable  Code = 83
)

// Failures of a storage engine.
const (
	StorageFailed Code = 96
	StorageFull   Code = 97
	Locked        Code = 98
	NewerFormat   Code = 99
)

// Category says which part of the system a failure belongs to. It is for people
// and for grouping in metrics; a program branches on the Code.
type Category uint8

// The numbers travel on the wire and never change meaning.
const (
	CategoryNone Category = iota // not stated
	CategoryMessage
	CategoryTopic
	CategoryConsumer
	CategoryStorage
	CategoryNetwork
	CategorySerialization
	CategoryCompression
	CategoryConfiguration
	CategorySecurity
	CategorySystem
)

var categoryNames = [...]string{
	CategoryNone:          "none",
	CategoryMessage:       "message",
	CategoryTopic:         "topic",
	CategoryConsumer:      "consumer",
	CategoryStorage:       "storage",
	CategoryNetwork:       "network",
	CategorySerialization: "serialization",
	CategoryCompression:   "compression",
	CategoryConfiguration: "configuration",
	CategorySecurity:      "security",
	CategorySystem:        "system",
}

// String returns the lower-case name, "category-N" for a number this version
// does not know.
func (c Category) String() string {
	if int(c) < len(categoryNames) {
		return categoryNames[c]
	}
	return "category-" + strconv.Itoa(int(c))
}

// Bits says what the receiver of a failure may do and what is left standing. It
// is the byte that an ERROR frame carries.
type Bits uint8

const (
	// BitRetryable: the same request may succeed later, sent again unchanged.
	BitRetryable Bits = 1 << iota
	// BitRetryElsewhere: the same request may succeed at another node.
	BitRetryElsewhere
	// BitClosesHandle: the producer or subscription is gone and must be opened anew.
	BitClosesHandle
	// BitClosesConnection: the connection is closed after the failure was reported.
	BitClosesConnection
)

// Info is the row of a Code in the table below.
type Info struct {
	Name             string // stable, lower case with hyphens; usable as a metric label
	Category         Category
	Retryable        bool
	RetryElsewhere   bool
	ClosesHandle     bool
	ClosesConnection bool
	HTTP             int    // status of an answer over HTTP
	Exit             Exit   // of a command that ends with it
	Text             string // cause and remedy, one sentence, without final stop
}

// Bits returns the four flags as they travel.
func (i Info) Bits() Bits {
	var b Bits
	if i.Retryable {
		b |= BitRetryable
	}
	if i.RetryElsewhere {
		b |= BitRetryElsewhere
	}
	if i.ClosesHandle {
		b |= BitClosesHandle
	}
	if i.ClosesConnection {
		b |= BitClosesConnection
	}
	return b
}

func (i Info) with(b Bits) Info {
	i.Retryable = b&BitRetryable != 0
	i.RetryElsewhere = b&BitRetryElsewhere != 0
	i.ClosesHandle = b&BitClosesHandle != 0
	i.ClosesConnection = b&BitClosesConnection != 0
	return i
}

// table is the only place where a Code is described. A new code is a constant
// above and a row here; the protocol's error table, the exit codes of the command
// line and docs/errors.md are generated from it or checked against it.
var table = [...]Info{
	None: {Name: "none", Category: CategoryNone, HTTP: 200, Exit: ExitOK, Text: "no failure"},

	Internal:          {Name: "internal", Category: CategorySystem, HTTP: 500, Exit: ExitFailure, Text: "a defect of the broker or the library; the log of the failing side has the details"},
	Invalid:           {Name: "invalid", Category: CategoryMessage, HTTP: 400, Exit: ExitInvalid, Text: "a field has a value that is not allowed; the field and its rule are named"},
	TooLarge:          {Name: "too-large", Category: CategoryMessage, HTTP: 413, Exit: ExitInvalid, Text: "a size is above its limit; both are named"},
	NotFound:          {Name: "not-found", Category: CategoryTopic, HTTP: 404, Exit: ExitNotFound, Text: "no such topic, partition or object; create it or correct the name"},
	Exists:            {Name: "exists", Category: CategoryTopic, HTTP: 409, Exit: ExitExists, Text: "an object of that name exists already"},
	Timeout:           {Name: "timeout", Category: CategoryNetwork, Retryable: true, HTTP: 504, Exit: ExitTimeout, Text: "no answer within the time allowed; the request may or may not have taken effect"},
	Canceled:          {Name: "canceled", Category: CategorySystem, HTTP: 499, Exit: ExitInterrupted, Text: "the caller gave up before the answer came; the request may or may not have taken effect"},
	Full:              {Name: "full", Category: CategoryStorage, Retryable: true, HTTP: 503, Exit: ExitBusy, Text: "a bounded queue, buffer or memory log has no room; wait until it drains or raise its limit"},
	Corrupted:         {Name: "corrupted", Category: CategoryStorage, HTTP: 500, Exit: ExitCorrupted, Text: "a checksum or a structure does not hold; the bytes were not used"},
	Closed:            {Name: "closed", Category: CategorySystem, HTTP: 410, Exit: ExitFailure, Text: "the object was closed and takes no more calls"},
	NotSupported:      {Name: "not-supported", Category: CategorySystem, HTTP: 501, Exit: ExitRefused, Text: "this version, engine or platform does not have the feature asked for"},
	ResourceExhausted: {Name: "resource-exhausted", Category: CategorySystem, Retryable: true, RetryElsewhere: true, HTTP: 503, Exit: ExitBusy, Text: "a limit on connections, descriptors, topics or open handles is reached"},
	ShuttingDown:      {Name: "shutting-down", Category: CategorySystem, Retryable: true, RetryElsewhere: true, HTTP: 503, Exit: ExitBusy, Text: "the broker is stopping and takes no new work; try again after its restart or at another node"},
	OutOfRange:        {Name: "out-of-range", Category: CategoryConsumer, HTTP: 416, Exit: ExitOutOfRange, Text: "the offset lies outside the log; the valid range is named"},
	Expired:           {Name: "expired", Category: CategoryMessage, HTTP: 410, Exit: ExitInvalid, Text: "the message or the session outlived its time"},
	MemoryExhausted:   {Name: "memory-exhausted", Category: CategorySystem, Retryable: true, RetryElsewhere: true, HTTP: 503, Exit: ExitBusy, Text: "the memory set aside for this is in use; wait until some comes back or raise its limit"},

	ConnectionLost:     {Name: "connection-lost", Category: CategoryNetwork, Retryable: true, RetryElsewhere: true, ClosesHandle: true, ClosesConnection: true, HTTP: 502, Exit: ExitUnreachable, Text: "the connection broke; requests in flight may or may not have taken effect"},
	VersionUnsupported: {Name: "version-unsupported", Category: CategoryNetwork, ClosesConnection: true, HTTP: 505, Exit: ExitUnreachable, Text: "the two sides share no protocol version; the range of the answering side is named"},
	ProtocolViolation:  {Name: "protocol-violation", Category: CategoryNetwork, ClosesConnection: true, HTTP: 400, Exit: ExitUnreachable, Text: "a frame breaks the protocol; what follows on the connection cannot be trusted"},
	HandleUnknown:      {Name: "handle-unknown", Category: CategoryNetwork, ClosesHandle: true, HTTP: 404, Exit: ExitFailure, Text: "the handle names no open producer or subscription of this connection; open it anew"},
	CreditExceeded:     {Name: "credit-exceeded", Category: CategoryNetwork, ClosesHandle: true, ClosesConnection: true, HTTP: 429, Exit: ExitBusy, Text: "the peer sent more bytes than its credit allows, which is what bounds memory"},
	SlowPeer:           {Name: "slow-peer", Category: CategoryNetwork, Retryable: true, ClosesConnection: true, HTTP: 408, Exit: ExitUnreachable, Text: "the peer did not read its answers and their queue reached its bound"},

	Unauthorized: {Name: "unauthorized", Category: CategorySecurity, HTTP: 401, Exit: ExitRefused, Text: "the connection has no identity that may do this"},

	Fenced:            {Name: "fenced", Category: CategoryMessage, HTTP: 409, Exit: ExitFailure, Text: "a newer producer or owner with a higher epoch took over; nothing sent in the old epoch is stored any more"},
	OutOfSequence:     {Name: "out-of-sequence", Category: CategoryMessage, HTTP: 409, Exit: ExitFailure, Text: "a batch of an idempotent producer leaves a gap in its sequence: one before it failed and must be sent again first, or was lost"},
	DuplicateSequence: {Name: "duplicate-sequence", Category: CategoryMessage, HTTP: 409, Exit: ExitFailure, Text: "the batch was stored before, too long ago to know its offset; it must not be sent again"},
	LevelUnavailable:  {Name: "level-unavailable", Category: CategoryConfiguration, HTTP: 422, Exit: ExitInvalid, Text: "the topic's engine cannot give this ack level or visibility; the setting to change is named"},

	StorageFailed: {Name: "storage-failed", Category: CategoryStorage, RetryElsewhere: true, HTTP: 500, Exit: ExitStorage, Text: "a write or sync failed and the partition takes no more batches until it is reopened; see the broker's log and the device"},
	StorageFull:   {Name: "storage-full", Category: CategoryStorage, Retryable: true, HTTP: 507, Exit: ExitStorage, Text: "the disk is low on space: producing stops, consuming goes on; free space or lower the retention"},
	Locked:        {Name: "locked", Category: CategoryStorage, HTTP: 423, Exit: ExitStorage, Text: "the data directory is in use by another process"},
	NewerFormat:   {Name: "newer-format", Category: CategoryStorage, HTTP: 500, Exit: ExitStorage, Text: "the data was written by a newer version; use that version or a newer one"},
}

// Info returns the row of c. For a code this version does not know (a newer
// peer's) it is a row named "code-N" of no category with no flag set.
func (c Code) Info() Info {
	if c.Known() {
		return table[c]
	}
	return Info{Name: "code-" + strconv.Itoa(int(c)), HTTP: 500, Exit: ExitFailure, Text: "a code of a newer version"}
}

// Known reports whether the table has a row for c.
func (c Code) Known() bool { return int(c) < len(table) && table[c].Name != "" }

// Error returns the code's name. It makes Code an error.
func (c Code) Error() string { return c.Info().Name }

// String returns the code's name.
func (c Code) String() string { return c.Info().Name }

// Codes returns every code of the table but None, in order of number.
func Codes() []Code {
	var all []Code
	for c := Code(1); int(c) < len(table); c++ {
		if c.Known() {
			all = append(all, c)
		}
	}
	return all
}
