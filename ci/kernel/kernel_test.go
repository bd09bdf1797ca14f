//go:build linux

package kernel

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// batch makes the bytes the kernel looks at: an envelope with CRC32C and count.
func batch(r *rand.ChaCha8, body, count int) []byte {
	b := make([]byte, prefixBytes+envelopeBytes+body)
	r.Read(b)
	binary.LittleEndian.PutUint32(b, uint32(envelopeBytes+body))
	p := b[prefixBytes:]
	binary.LittleEndian.PutUint32(p[countAt:], uint32(count))
	binary.LittleEndian.PutUint32(p[bodyCRCAt:], crc32.Checksum(p[envelopeBytes:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

type result struct {
	stats Stats
	err   error
}

// start serves one kernel and returns its two connected clients.
func start(t *testing.T, o Options) (producer, consumer net.Conn, done <-chan result) {
	t.Helper()
	o.File = filepath.Join(t.TempDir(), "region")
	s, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	c := make(chan result, 1)
	go func() {
		stats, err := s.Serve()
		c <- result{stats, err}
	}()
	dial := func(role string) net.Conn {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, role); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	consumer, producer = dial("C"), dial("P")
	t.Cleanup(func() {
		producer.Close()
		consumer.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(o.File); !os.IsNotExist(err) {
			t.Errorf("region file after Close: %v", err)
		}
	})
	return producer, consumer, c
}

func TestCopiesAndAcknowledges(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    Options
	}{
		{"one call a batch", Options{RegionBytes: 64 << 20}},
		{"gathered", Options{RegionBytes: 64 << 20, Gather: true}},
		{"receive buffer smaller than a batch", Options{RegionBytes: 64 << 20, ReadBytes: 4 << 10}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			producer, consumer, done := start(t, tt.o)
			// 150 MB through a region of 64 MiB: it wraps twice.
			r := rand.NewChaCha8([32]byte{1})
			sent := make(chan uint32, 1)
			const batches = 600
			go func() {
				want := crc32.NewIEEE()
				defer func() { sent <- want.Sum32() }()
				for i := range batches {
					b := batch(r, 1+i*7919%(500<<10), 1+i%64)
					want.Write(b)
					if _, err := producer.Write(b); err != nil {
						t.Error(err)
						return
					}
				}
				producer.(*net.TCPConn).CloseWrite()
			}()
			acks := make(chan []byte, 1)
			go func() {
				b, err := io.ReadAll(producer)
				if err != nil {
					t.Error(err)
				}
				acks <- b
			}()
			got := crc32.NewIEEE()
			n, err := io.Copy(got, consumer)
			if err != nil {
				t.Fatal(err)
			}
			res := <-done
			if res.err != nil {
				t.Fatal(res.err)
			}
			if got.Sum32() != <-sent {
				t.Error("the consumer did not get the producer's bytes")
			}
			if res.stats.Batches != batches || res.stats.Bytes != n {
				t.Errorf("stats %+v, want %d batches and %d bytes", res.stats, batches, n)
			}
			if !tt.o.Gather && (res.stats.Writes != batches || res.stats.Sends < batches) {
				t.Errorf("%d writes and %d sends for %d batches", res.stats.Writes, res.stats.Sends, batches)
			}
			a := <-acks
			if len(a) != ackBytes*batches {
				t.Fatalf("%d bytes of acknowledgements, want %d", len(a), ackBytes*batches)
			}
			if last := int64(binary.LittleEndian.Uint64(a[len(a)-ackBytes:])); last != res.stats.Messages {
				t.Errorf("last acknowledgement %d, want %d messages", last, res.stats.Messages)
			}
		})
	}
}

func TestRefusesDamage(t *testing.T) {
	r := rand.NewChaCha8([32]byte{2})
	flipped := batch(r, 1000, 1)
	flipped[len(flipped)-1] ^= 1
	for _, tt := range []struct {
		name, want string
		bytes      []byte
	}{
		{"flipped bit", "CRC32C", flipped},
		{"length below an envelope", "batch of 79 bytes", binary.LittleEndian.AppendUint32(nil, 79)},
		{"length above the limit", "batch of 4194305 bytes", binary.LittleEndian.AppendUint32(nil, BatchBytesMax+1)},
		{"end within a batch", "read with 500 bytes", batch(r, 1000, 1)[:500]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			producer, consumer, done := start(t, Options{RegionBytes: 64 << 20})
			if _, err := producer.Write(tt.bytes); err != nil {
				t.Fatal(err)
			}
			producer.(*net.TCPConn).CloseWrite()
			if res := <-done; res.err == nil || !strings.Contains(res.err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", res.err, tt.want)
			}
			if b, err := io.ReadAll(consumer); err != nil || bytes.Contains(b, tt.bytes) {
				t.Errorf("the consumer got %d bytes of it (%v)", len(b), err)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{RegionBytes: 1}, {ReadBytes: 1}, {ReadBytes: 1 << 30}} {
		o.File = filepath.Join(t.TempDir(), "region")
		if s, err := Listen(o); err == nil {
			s.Close()
			t.Errorf("%+v was accepted", o)
		}
	}
}
