// Package fleet runs one scenario from several processes, on one machine or
// many: agents, each of which has a share, and a coordinator that begins them
// together and makes one result of theirs.
//
// # Shares
//
// The partitions of every topic are dealt out. An agent sends to its own and
// consumes them itself, so that each message's latencies are of one clock and
// no mark of what was sent crosses the network. What that leaves out: a message
// never goes from one agent to another, and a key has a partition with each
// agent. Producers' ids are distinct in the whole run, and each agent draws
// arrivals and payloads from a seed of its own (see Split).
//
// # Clocks
//
// Clocks matter for the common start and for putting intervals side by side,
// nothing else. The offset of an agent's monotonic clock is taken from the
// shortest of several round trips, half of which bounds the error. It is measured
// before and after the run; bound and drift are kept with the result.
//
// # Protocol
//
// TCP. A frame is its length, 4 bytes, big-endian, and so many bytes of JSON.
// Both sides prove that they know the shared token by HMAC-SHA256 over both
// sides' nonces; the token itself is not sent, and nothing is encrypted: across
// a network that others can read or change it wants a tunnel. Until then
// frames are at most 1 KiB and all must be done in 5 seconds. Afterwards an
// agent takes frames of 1 MiB, a coordinator of 16 MiB, each of which must be
// there within 15 seconds, and memory is taken as bytes arrive. Both sides send
// a sign of life every 2 seconds. An agent has one run at a time and at most 8
// connections. Who knows the token can make an agent load any address; it can
// not make it read files.
package fleet

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

const (
	protocolVersion = 1

	helloBytesMax = 1 << 10
	orderBytesMax = 1 << 20  // to an agent
	tellBytesMax  = 16 << 20 // to a coordinator

	helloTimeout = 5 * time.Second
	frameTimeout = 15 * time.Second
	beatEvery    = 2 * time.Second

	// AgentsMax of a run.
	AgentsMax = 256

	connsMax = 8
	// silenceMax: an agent tells of an interval every second.
	silenceMax = 30 * time.Second
	readyMax   = 2 * time.Minute
	// lateMax and clockMax: above them agents did not begin together.
	lateMax  = 10 * time.Millisecond
	clockMax = 50 * time.Millisecond
	// startAhead is the notice that agents get of the start, beside the round
	// trip; executeAhead of it is for the run's own preparations.
	startAhead   = 500 * time.Millisecond
	executeAhead = 100 * time.Millisecond
	pings        = 25
)

// DefaultAddress is where an agent listens if nothing is said: for this machine.
const DefaultAddress = "127.0.0.1:7475"

// TokenVariable is the environment variable of the token.
const TokenVariable = "LOADGEN_TOKEN"

// Limits of a token's length. The lower one refuses what can be tried out.
const (
	TokenBytesMin = 16
	TokenBytesMax = 4096
)

// Token reads the shared token from a file, or from the environment if there is
// no file. White space around it is not part of it.
func Token(file string) ([]byte, error) {
	text, from := os.Getenv(TokenVariable), "$"+TokenVariable
	if file != "" {
		info, err := os.Stat(file)
		if err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		if !info.Mode().IsRegular() || info.Size() > 2*TokenBytesMax {
			return nil, fmt.Errorf("token: %s is no file of at most %d bytes", file, 2*TokenBytesMax)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		text, from = string(b), file
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, errors.New("no token: want --token FILE or " + TokenVariable)
	}
	if n := len(text); n < TokenBytesMin || n > TokenBytesMax {
		return nil, fmt.Errorf("token of %d bytes in %s: want %d to %d", n, from, TokenBytesMin, TokenBytesMax)
	}
	return []byte(text), nil
}
