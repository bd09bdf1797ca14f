package server

import (
	"os"
	"testing"
	"time"

	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/broker/topic"
)

// A broker that was busy and is idle has given its memory for batches back, by
// its own accounts and by the system's, with all connections open; and goes on
// where it was, producers and consumers alike.
func TestIdleBrokerGivesItsMemoryBack(t *testing.T) {
	s := setting{"", "disklog"}
	b := s.start(t, Options{Loops: 1, TailBytes: 32 << 20, Topics: topic.Config{SegmentBytes: 64 << 20}})
	b.topic("t", topic.Config{Visibility: message.AckAccepted})
	f := newFlood(t, b, "t", message.AckAccepted, 8)
	process, err := sysmetrics.OpenProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	resident := func() int64 {
		n, err := process.ResidentBytes()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	f.produce(100)
	f.consume(100)
	for range 10 { // 62 MiB: the tail is full
		f.produce(100)
		f.consume(100)
	}
	busy, was := b.pool.Stats(), resident()
	if busy.KeptBytes < 24<<20 {
		t.Fatalf("busy: %v", busy)
	}
	// A loop gives its receive chunk up on a tick of its own, in real time.
	for end := time.Now().Add(patience); ; {
		if st := b.pool.Stats(); st.LiveBytes == st.KeptBytes || time.Now().After(end) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	now := time.Now()
	for range int((mempool.DefaultKeepFor+mempool.Window)/time.Second) + 3 {
		now = now.Add(time.Second)
		b.pool.Tune(now)
	}
	if st := b.pool.Stats(); st.LiveBytes != 0 || st.KeptBytes != 0 || st.FreeBytes != 0 || st.TrimmedBytes < busy.KeptBytes {
		t.Errorf("idle: %v", st)
	}
	if freed := was - resident(); mempool.OffHeap && freed < 3*busy.KeptBytes/4 {
		t.Errorf("%d KiB of at least %d went back to the system", freed>>10, busy.KeptBytes>>10)
	}
	f.produce(100)
	f.consume(100)
	if st := b.Stats(); st.Connections != 2 || st.Closed != 0 {
		t.Errorf("%+v", st.Counters)
	}
}

// Records of connections that are gone do not stay.
func TestRecordsOfClosedConnectionsGoBack(t *testing.T) {
	s := setting{"", "memlog"}
	b := s.start(t, Options{Loops: 1})
	b.topic("t", topic.Config{Visibility: message.AckAccepted})
	records := func() int64 { st := b.Stats(); return st.Loops.RecordBytes + int64(st.RecordBytes) }
	before := records()
	for range 3 {
		f := newFlood(t, b, "t", message.AckAccepted, 1)
		f.produce(1)
		if records() <= before {
			t.Fatalf("records take %d bytes with connections, %d without", records(), before)
		}
		f.p.cut()
		f.k.cut()
		for end := time.Now().Add(patience); records() > before; {
			if time.Now().After(end) {
				t.Fatalf("records take %d bytes after the last connection, %d before the first", records(), before)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}
