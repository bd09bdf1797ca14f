package wire

import "github.com/portask/portask/broker/fault"

// Hello is a client's first frame.
//
//	┌─────────────┬───────────┬──────────────┬─────────┬─────────┬─────────┐
//	│ features u64│max frame  │ heartbeat ms │ name    │ version │ options │
//	│             │ u32       │ u32          │ str 256 │ str 64  │         │
//	└─────────────┴───────────┴──────────────┴─────────┴─────────┴─────────┘
type Hello struct {
	Features      uint64 // what the client can do; bits the broker does not know are ignored
	MaxFrame      uint32 // the largest frame it takes, 0 = no limit of its own
	HeartbeatMs   uint32 // the interval it wants, 0 = the broker's default
	ClientName    string // for logs and metrics
	ClientVersion string
}

// Append implements Payload.
func (x *Hello) Append(dst []byte) []byte {
	dst = le.AppendUint64(dst, x.Features)
	dst = le.AppendUint32(dst, x.MaxFrame)
	dst = le.AppendUint32(dst, x.HeartbeatMs)
	dst = appendText(dst, x.ClientName, MaxNameBytes)
	dst = appendText(dst, x.ClientVersion, MaxVersionBytes)
	return appendOptions(dst, nil)
}

// Parse implements Payload.
func (x *Hello) Parse(src []byte) error {
	c := cursor{name: "HELLO", b: src}
	x.Features = c.u64("features")
	x.MaxFrame = c.maxFrame()
	x.HeartbeatMs = c.u32("heartbeat_ms")
	x.ClientName = c.str("client_name", MaxNameBytes)
	x.ClientVersion = c.str("client_version", MaxVersionBytes)
	err := c.finish()
	if e := fault.Find(err); e != nil && e.Bits()&fault.BitClosesConnection == 0 {
		// Without a HELLO_OK there is no connection to go on with.
		return e.WithBits(e.Bits() | fault.BitClosesConnection)
	}
	return err
}

// maxFrame reads the largest frame a peer takes: 0 or a size in the range.
func (c *cursor) maxFrame() uint32 {
	v := c.u32("max_frame")
	switch {
	case c.err != nil || v == 0:
	case v < MinMaxFrame:
		c.fail(c.invalid("max_frame", "too small for the protocol").WithLimit(int64(v), MinMaxFrame).WithCategory(fault.CategoryNetwork))
	case v > MaxMaxFrame:
		c.fail(c.tooLarge("max_frame", "beyond the protocol's limit", int64(v), MaxMaxFrame).WithCategory(fault.CategoryNetwork))
	}
	return v
}

// HelloOK answers Hello. From it on the sizes it states hold instead of those
// before authentication.
//
//	┌─────────┬─────────────┬───────────┬───────────┬─────────────┬──────────────┐
//	│ version │ features u64│ max frame │ max batch │ max message │ heartbeat ms │
//	│ u16     │             │ u32       │ u32       │ u32         │ u32          │
//	├─────────┴───┬─────────┴──┬────────┴─┬─────────┴───────┬─────┴─────────┬────┴────┐
//	│ broker      │ cluster id │ node id  │ mechanisms      │ opcodes       │ options │
//	│ version     │ str 64     │ str 64   │ u16 n, n×str 32 │ u16 n,        │         │
//	│ str 64      │            │          │ n ≤ 16          │ n×{u16,u8,u8} │         │
//	│             │            │          │                 │ n ≤ 512       │         │
//	└─────────────┴────────────┴──────────┴─────────────────┴───────────────┴─────────┘
//
//	option 2: load
//	┌────────┬───────────┬─────────┬─────────┐
//	│ cpu u8 │ memory u8 │ disk u8 │ link u8 │   as in ADVICE
//	└────────┴───────────┴─────────┴─────────┘
type HelloOK struct {
	Version       uint16 // chosen from the preface's range
	Features      uint64 // those of the client's that the broker has too
	MaxFrame      uint32 // of the connection, both ways
	MaxBatch      uint32 // bytes of the largest batch the broker takes
	MaxMessage    uint32 // bytes of the largest message
	HeartbeatMs   uint32 // of the connection
	ServerVersion string
	ClusterID     string
	NodeID        string
	Mechanisms    []string // of authentication; empty = none needed
	Opcodes       []OpcodeRange

	HasLoad bool
	Load    Load // how busy the broker is at this time
}

const (
	optHelloLoad = 2
	helloKnown   = 1 << optHelloLoad
)

// OpcodeRange tells which versions of an opcode's payload the broker takes,
// both inclusive.
type OpcodeRange struct {
	Opcode    Opcode
	Low, High uint8
}

// Append implements Payload.
func (x *HelloOK) Append(dst []byte) []byte {
	dst = le.AppendUint16(dst, x.Version)
	dst = le.AppendUint64(dst, x.Features)
	dst = le.AppendUint32(dst, x.MaxFrame)
	dst = le.AppendUint32(dst, x.MaxBatch)
	dst = le.AppendUint32(dst, x.MaxMessage)
	dst = le.AppendUint32(dst, x.HeartbeatMs)
	dst = appendText(dst, x.ServerVersion, MaxVersionBytes)
	dst = appendString(dst, x.ClusterID)
	dst = appendString(dst, x.NodeID)
	mechanisms := x.Mechanisms[:min(len(x.Mechanisms), MaxMechanisms)]
	dst = le.AppendUint16(dst, uint16(len(mechanisms)))
	for _, m := range mechanisms {
		dst = appendString(dst, m)
	}
	ranges := x.Opcodes[:min(len(x.Opcodes), MaxOpcodes)]
	dst = le.AppendUint16(dst, uint16(len(ranges)))
	for _, r := range ranges {
		dst = le.AppendUint16(dst, uint16(r.Opcode))
		dst = append(dst, r.Low, r.High)
	}
	if !x.HasLoad {
		return appendOptions(dst, nil)
	}
	dst = le.AppendUint16(dst, optionHeadBytes+loadBytes)
	return AppendOption(dst, optHelloLoad, x.Load.bytes())
}

// Parse implements Payload.
func (x *HelloOK) Parse(src []byte) error {
	c := cursor{name: "HELLO_OK", b: src}
	x.Version = c.u16("version")
	x.Features = c.u64("features")
	x.MaxFrame = c.maxFrame()
	x.MaxBatch = c.u32("max_batch")
	x.MaxMessage = c.u32("max_message")
	x.HeartbeatMs = c.u32("heartbeat_ms")
	x.ServerVersion = c.str("server_version", MaxVersionBytes)
	x.ClusterID = c.str("cluster_id", MaxIDBytes)
	x.NodeID = c.str("node_id", MaxIDBytes)
	x.Mechanisms = x.Mechanisms[:0]
	for range c.count("mechanisms", uint32(c.u16("mechanisms")), MaxMechanisms, 2) {
		x.Mechanisms = append(x.Mechanisms, c.str("mechanism", MaxMechanismBytes))
	}
	x.Opcodes = x.Opcodes[:0]
	for range c.count("opcodes", uint32(c.u16("opcodes")), MaxOpcodes, 4) {
		x.Opcodes = append(x.Opcodes, OpcodeRange{Opcode: Opcode(c.u16("opcode")), Low: c.u8("opcode"), High: c.u8("opcode")})
	}
	x.HasLoad, x.Load = false, Load{}
	if v, ok := c.options(helloKnown).Lookup(optHelloLoad); ok && c.sized("load", v, loadBytes) {
		x.HasLoad, x.Load = true, loadOf(v)
	}
	return c.end()
}

// Range returns the versions of op that the broker takes, ok false if none.
func (x *HelloOK) Range(op Opcode) (r OpcodeRange, ok bool) {
	for _, r := range x.Opcodes {
		if r.Opcode == op {
			return r, true
		}
	}
	return OpcodeRange{}, false
}

// Ping asks for a sign of life; the answer repeats the nonce. Either side may
// send it. It has no options.
//
//	┌───────────┐
//	│ nonce u64 │
//	└───────────┘
type Ping struct {
	Nonce uint64
}

// Append implements Payload.
func (x *Ping) Append(dst []byte) []byte { return le.AppendUint64(dst, x.Nonce) }

// Parse implements Payload.
func (x *Ping) Parse(src []byte) error {
	c := cursor{name: "PING", b: src}
	x.Nonce = c.u64("nonce")
	return c.end()
}

// Reasons of a GoAway.
const (
	GoAwayUnstated     uint8 = 0
	GoAwayShuttingDown uint8 = 1 // the broker stops or restarts
	GoAwayOverloaded   uint8 = 2 // the broker sheds connections
	GoAwayMoved        uint8 = 3 // what the client uses is now at Node
)

// GoAway announces that the broker will close the connection: the client sends
// no new request, gets its answers, and connects elsewhere or later.
//
//	┌───────────┬──────────────┬─────────┬─────────┐
//	│ reason u8 │ drain ms u32 │ node    │ options │
//	│           │              │ str 256 │         │
//	└───────────┴──────────────┴─────────┴─────────┘
type GoAway struct {
	Reason  uint8
	DrainMs uint32 // after which the broker closes, whatever is open
	Node    string // host:port to connect to instead; empty = the same, later
}

// Append implements Payload.
func (x *GoAway) Append(dst []byte) []byte {
	dst = append(dst, x.Reason)
	dst = le.AppendUint32(dst, x.DrainMs)
	dst = appendString(dst, x.Node)
	return appendOptions(dst, nil)
}

// Parse implements Payload.
func (x *GoAway) Parse(src []byte) error {
	c := cursor{name: "GOAWAY", b: src}
	x.Reason = c.u8("reason")
	x.DrainMs = c.u32("drain_ms")
	x.Node = c.str("node", MaxNameBytes)
	return c.finish()
}

// Empty is the payload of an answer that says no more than that the request was
// carried out, and the layout of requests that say it all by their header.
//
//	┌─────────┐
//	│ options │
//	└─────────┘
type Empty struct{}

// Append implements Payload.
func (*Empty) Append(dst []byte) []byte { return appendOptions(dst, nil) }

// Parse implements Payload.
func (*Empty) Parse(src []byte) error { return parseEmpty("empty answer", src) }

func parseEmpty(name string, src []byte) error {
	c := cursor{name: name, b: src}
	return c.finish()
}

// Close says that the client sends nothing more: the broker answers it and closes
// the connection. A client that wants its answers waits for them before. The
// payload is empty.
type Close struct{}

// Append implements Payload.
func (*Close) Append(dst []byte) []byte { return appendOptions(dst, nil) }

// Parse implements Payload.
func (*Close) Parse(src []byte) error { return parseEmpty("CLOSE", src) }
