package fleet

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/portask/portask/loadgen/load"
)

// Kinds of frames. Agents send hello first, then coordinators; the others as
// docs of the fields say.
const (
	kindHello    = "hello"
	kindRefused  = "refused" // agent: the token is another, or it is busy
	kindAlive    = "alive"   // both
	kindPing     = "ping"    // coordinator; the agent answers with pong
	kindPong     = "pong"
	kindPrepare  = "prepare"  // coordinator: Order
	kindReady    = "ready"    // agent
	kindStart    = "start"    // coordinator: Clock
	kindStop     = "stop"     // coordinator: end early
	kindInterval = "interval" // agent: Interval
	kindResult   = "result"   // agent: Result, Late
	kindFailed   = "failed"   // agent: no result, Text says why
)

// frame is what one side tells the other.
type frame struct {
	Kind string `json:"kind"`

	Protocol int    `json:"protocol,omitempty"` // hello
	Version  string `json:"version,omitempty"`  // hello: of the program
	Nonce    []byte `json:"nonce,omitempty"`    // hello
	Proof    []byte `json:"proof,omitempty"`    // hello of the coordinator, and the agent's second

	Text string `json:"text,omitempty"`
	// Clock is the agent's, ns: now in a pong, when to begin in a start.
	Clock    int64        `json:"clock,omitempty"`
	Order    *order       `json:"order,omitempty"`
	Interval *interval    `json:"interval,omitempty"`
	Result   *load.Result `json:"result,omitempty"`
	Late     int64        `json:"late_ns,omitempty"`
}

// order is an agent's share of a run.
type order struct {
	Driver   string            `json:"driver"`
	Addr     string            `json:"addr"`
	Settings map[string]string `json:"settings,omitempty"`
	Scenario string            `json:"scenario"` // YAML
	RunID    uint64            `json:"run_id"`
	Share    load.Share        `json:"share"`
}

// interval is one of an agent's run.
type interval struct {
	load.Interval
	Histograms load.Histograms `json:"histograms"`
}

// errTooLong: a peer's frame is longer than it may be. The connection is of no
// more use.
var errTooLong = errors.New("frame too long")

// conn carries frames. write is safe for concurrent use, read is for one
// goroutine.
type conn struct {
	c   net.Conn
	max int // bytes of a frame that is read

	mu sync.Mutex // held while writing
}

func (c *conn) write(f *frame) error {
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.c.SetWriteDeadline(time.Now().Add(frameTimeout))
	bufs := net.Buffers{binary.BigEndian.AppendUint32(nil, uint32(len(b))), b}
	_, err = bufs.WriteTo(c.c)
	return err
}

// read waits for a whole frame until the deadline.
func (c *conn) read(deadline time.Time) (*frame, error) {
	c.c.SetReadDeadline(deadline)
	return readFrame(c.c, c.max)
}

func readFrame(r io.Reader, most int) (*frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if uint64(n) > uint64(most) {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", errTooLong, n, most)
	}
	var b bytes.Buffer // grows with what arrives, not with what was promised
	if _, err := io.CopyN(&b, r, int64(n)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	f := new(frame)
	if err := json.Unmarshal(b.Bytes(), f); err != nil {
		return nil, fmt.Errorf("frame: %w", err)
	}
	if f.Kind == "" {
		return nil, errors.New("frame without a kind")
	}
	return f, nil
}

// beat sends signs of life until ctx ends.
func (c *conn) beat(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if c.write(&frame{Kind: kindAlive}) != nil {
				return
			}
		}
	}
}

// nonceBytes are enough never to be drawn twice.
const nonceBytes = 32

// proof shows that a side knows the token. side keeps one side's proof from
// being sent back as the other's.
func proof(token []byte, side string, agent, coordinator []byte) []byte {
	m := hmac.New(sha256.New, token)
	fmt.Fprintf(m, "portask loadgen fleet %d %s\n", protocolVersion, side)
	m.Write(agent)
	m.Write(coordinator)
	return m.Sum(nil)
}

func newNonce() []byte {
	b := make([]byte, nonceBytes)
	rand.Read(b)
	return b
}

// errRefused: the other side does not know the token, or says that we do not.
var errRefused = errors.New("refused")

// admit is the agent's side of the beginning.
func (c *conn) admit(token []byte, version string) error {
	deadline := time.Now().Add(helloTimeout)
	own := newNonce()
	if err := c.write(&frame{Kind: kindHello, Protocol: protocolVersion, Version: version, Nonce: own}); err != nil {
		return err
	}
	f, err := c.read(deadline)
	if err != nil {
		return err
	}
	if f.Kind != kindHello || len(f.Nonce) != nonceBytes || !hmac.Equal(f.Proof, proof(token, "coordinator", own, f.Nonce)) {
		c.write(&frame{Kind: kindRefused, Text: "the token is another one"})
		return fmt.Errorf("%w: the token is another one", errRefused)
	}
	return c.write(&frame{Kind: kindHello, Proof: proof(token, "agent", own, f.Nonce)})
}

// introduce is the coordinator's side; it returns the agent's version.
func (c *conn) introduce(token []byte) (version string, err error) {
	deadline := time.Now().Add(helloTimeout)
	f, err := c.read(deadline)
	if err != nil {
		return "", err
	}
	if f.Kind != kindHello || len(f.Nonce) != nonceBytes {
		return "", errors.New("no agent of loadgen answers there")
	}
	if f.Protocol != protocolVersion {
		return "", fmt.Errorf("the agent speaks protocol %d, this is %d", f.Protocol, protocolVersion)
	}
	own := newNonce()
	if err := c.write(&frame{Kind: kindHello, Nonce: own, Proof: proof(token, "coordinator", f.Nonce, own)}); err != nil {
		return "", err
	}
	answer, err := c.read(deadline)
	switch {
	case err != nil:
		return "", err
	case answer.Kind == kindRefused:
		return "", fmt.Errorf("%w: %s", errRefused, answer.Text)
	case answer.Kind != kindHello || !hmac.Equal(answer.Proof, proof(token, "agent", f.Nonce, own)):
		return "", fmt.Errorf("%w: what answers there does not know the token", errRefused)
	}
	return f.Version, nil
}
