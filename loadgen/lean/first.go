//go:build linux

package lean

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/portask/portask/broker/wire"
)

// FirstAnswer waits for a broker to write its address to a file and asks it for
// the topic's metadata: the first answer of a starting broker. It prints
// "ready" before waiting and one line of JSON after.
func FirstAnswer(addrFile, topic string, timeout time.Duration, out io.Writer) error {
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	var text string
	for deadline := time.Now().Add(timeout); ; time.Sleep(500 * time.Microsecond) {
		b, err := os.ReadFile(addrFile)
		if text = strings.TrimSpace(string(b)); err == nil && text != "" {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no address in %s within %v", addrFile, timeout)
		}
	}
	addr, err := netip.ParseAddrPort(text)
	if err != nil {
		return err
	}
	c, err := dial(addr)
	if err != nil {
		return err
	}
	defer c.close()
	var t portaskTarget
	if _, err := t.hello(c); err != nil {
		return err
	}
	var m wire.Metadata
	if _, err := t.request(c, wire.OpMetadata, &wire.MetadataRequest{Topics: []string{topic}}, &m); err != nil {
		return err
	}
	if len(m.Topics) != 1 || len(m.Topics[0].Partitions) == 0 {
		return fmt.Errorf("metadata tells of %d topics, want topic %q", len(m.Topics), topic)
	}
	return json.NewEncoder(out).Encode(map[string]int64{
		"partitions": int64(len(m.Topics[0].Partitions)),
		"log_end":    int64(m.Topics[0].Partitions[0].LogEnd),
	})
}
