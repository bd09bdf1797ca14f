package load

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"testing"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/driver/loopback"
	"github.com/portask/portask/loadgen/scenario"
)

// streamMessages are hashed.
const streamMessages = 2000

// hashing takes the SHA-256 of the first messages that are sent: producer,
// topic, partition, key, and the value to the byte.
type hashing struct {
	driver.Driver
	sum  hash.Hash
	seen int
}

func (d *hashing) Connect(ctx context.Context, name string) (driver.Conn, error) {
	c, err := d.Driver.Connect(ctx, name)
	return &hashingConn{c, d, name}, err
}

type hashingConn struct {
	driver.Conn
	d    *hashing
	name string
}

func (c *hashingConn) Producer(ctx context.Context, o driver.ProducerOptions) (driver.Producer, error) {
	p, err := c.Conn.Producer(ctx, o)
	return &hashingProducer{p, c.d, c.name + " " + o.Topic}, err
}

type hashingProducer struct {
	driver.Producer
	d  *hashing
	to string
}

func (p *hashingProducer) Slot(answered func(error)) driver.Slot {
	return &hashingSlot{p.Producer.Slot(answered), p}
}

type hashingSlot struct {
	driver.Slot
	p *hashingProducer
}

// Send is called by the pacer alone, in an open loop.
func (s *hashingSlot) Send(ctx context.Context, partition uint32, m *message.Message) error {
	if d := s.p.d; d.seen < streamMessages {
		d.seen++
		fmt.Fprintf(d.sum, "%s %d %s %d ", s.p.to, partition, m.Key, len(m.Value))
		d.sum.Write(m.Value)
	}
	return s.Slot.Send(ctx, partition, m)
}

// streamHash runs a scenario in which all that is random is used.
func streamHash(t *testing.T, codec string) string {
	s := plan(t, "seed=11", "producers.codec="+codec, "producers.count=3", "keys.count=500", "keys.skew=0.99", "payload.distribution=lognormal",
		"phases.*.arrival=poisson", "phases.*.rate=8000", "phases.*.duration=150ms", "topics.0.name=a")
	s.Topics = append(s.Topics, scenario.Topic{Name: "b", Partitions: 2, Visibility: "ack", Share: 2})
	d := &hashing{Driver: loopback.Open(loopback.Behaviour{}), sum: sha256.New()}
	binary.Write(d.sum, binary.LittleEndian, uint32(streamMessages))
	res := execute(t, s, loopback.Behaviour{}, func(c *Config) { c.Driver, c.RunID = d, 0x1122334455667788 })
	if d.seen != streamMessages || len(res.Violations) > 0 {
		t.Fatalf("%d messages, violations %v", d.seen, res.Violations)
	}
	return hex.EncodeToString(d.sum.Sum(nil))
}

const streamOf = "LOADGEN_TEST_STREAM"

// TestStreamOfAnotherProcess is the other process.
func TestStreamOfAnotherProcess(t *testing.T) {
	codec := os.Getenv(streamOf)
	if codec == "" {
		t.Skip("run by TestSameSeedSameBytes")
	}
	fmt.Printf("stream=%s\n", streamHash(t, codec))
}

// The same scenario, seed and run id send the same bytes: in this process, in
// another, and today as when this test was written. A change of the golden
// values makes results of before and after incomparable: it is for the
// changelog.
func TestSameSeedSameBytes(t *testing.T) {
	for codec, golden := range map[string]string{
		"raw":  "f90a8a45e786235ad959d91bb3b2f9948f62d886478b5bec2fb1a4071fd2076e",
		"cbor": "50eea8fcc6087299fa90bd8d5ef6b3ab95e8367081e6979be5e3d255ab83f8ff",
	} {
		here := streamHash(t, codec)
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestStreamOfAnotherProcess$", "-test.v")
		cmd.Env = append(os.Environ(), streamOf+"="+codec)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		m := regexp.MustCompile(`stream=([0-9a-f]{64})`).FindSubmatch(out)
		if m == nil || string(m[1]) != here {
			t.Errorf("%s: another process sent something else than %s:\n%s", codec, here, out)
		}
		// Other processors may round the last bit of a logarithm otherwise.
		if runtime.GOARCH == "amd64" && here != golden {
			t.Errorf("%s: %s, want %s", codec, here, golden)
		}
	}
}
