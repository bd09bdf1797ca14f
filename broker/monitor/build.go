package monitor

import (
	"cmp"
	"math"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server"
)

// Report takes a Report.
func (m *Monitor) Report() *Report {
	sys := m.systemNow() // before Time: it may be read anew
	r := &Report{Version: m.opts.Version, Go: runtime.Version(), Node: m.opts.Node, Time: time.Now(), Uptime: time.Since(m.began)}
	r.Latencies, r.Interval = m.lat.get()
	r.system(sys)
	r.Sampled = sys.At.Sub(m.began)
	if r.System.Disk != nil {
		r.System.Disk.Path = m.opts.Path
	}
	r.Process.runtime()
	r.Ready, r.Components = m.components()
	if s := m.broker.Load(); s != nil {
		r.shown(s, &m.ledger)
	}
	return r
}

// The components of readiness.
const (
	componentListener = "listener"
	componentStorage  = "storage"
	componentLogs     = "logs"
)

// components says what is ready, and why something is not.
func (m *Monitor) components() (ready bool, all []Component) {
	listener, store, logs := Component{Name: componentListener}, Component{Name: componentStorage}, Component{Name: componentLogs}
	no := func(c *Component, code fault.Code, reason string) { c.Reason, c.Code = reason, code.String() }
	s := m.broker.Load()
	if s == nil {
		for _, c := range []*Component{&listener, &store, &logs} {
			no(c, fault.ResourceExhausted, "the broker is starting: it opens and recovers its logs")
		}
	} else {
		h := s.Health()
		switch {
		case h.Draining:
			no(&listener, fault.ShuttingDown, "the broker is stopping")
		case !h.Serving:
			no(&listener, fault.ResourceExhausted, "connections are not accepted yet")
		}
		if h.Space.Full {
			no(&store, fault.StorageFull, fault.StorageFull.Info().Text)
		}
		if h.Failed > 0 {
			no(&logs, fault.StorageFailed, plural(h.Failed, "partition takes", "partitions take")+" no more batches, one of topic "+h.FailedTopic+": "+fault.StorageFailed.Info().Text)
		}
	}
	ready = true
	all = []Component{listener, store, logs}
	for i := range all {
		all[i].Ready = all[i].Reason == ""
		ready = ready && all[i].Ready
	}
	return ready, all
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// shown fills in what the broker says.
func (r *Report) shown(s *server.Server, l *ledger) {
	st, f, health := s.Stats(), l.read(s.Topics(), s.Levels().Has(message.AckDurable)), s.Space()
	r.Cluster, r.Engine, r.Address = s.ClusterID(), s.Engine(), s.Addr().String()
	n := &st.Loops
	r.Totals = Totals{
		Connections: int64(st.Connections), Producers: int64(st.Producers), Subscriptions: int64(st.Subscriptions),
		ConnectionsOpened: st.Opened, ConnectionsClosed: st.Closed, ConnectionsRefused: n.Refused,
		Frames: st.Frames, Errors: st.Errors,
		BatchesIn: st.BatchesIn, MessagesIn: st.MessagesIn, BytesIn: st.BytesIn,
		BatchesStored: f.total.batches, MessagesStored: f.total.messages, Acks: st.Acks, Duplicates: st.Duplicates,
		Delivers: st.Delivers, BatchesOut: st.BatchesOut, MessagesOut: st.MessagesOut, BytesOut: st.BytesOut, HistoryReads: st.HistoryReads,
		SocketBytesIn: n.BytesIn, SocketBytesOut: n.BytesOut, Syscalls: n.Reads + n.Writes + n.Sendfiles + n.Waits + n.Accepts,
		Topics: len(f.topics), Partitions: f.now.partitions, CreditFreeBytes: s.CreditFreeBytes(),
	}
	for i, l := range s.LoopStats() {
		r.Loops = append(r.Loops, Loop{Index: i, Connections: int64(l.Connections), Turns: l.Network.Turns, Frames: l.Frames,
			BytesIn: l.Network.BytesIn, BytesOut: l.Network.BytesOut})
	}
	e := &st.Storage
	r.Storage = Storage{FreeBytes: health.FreeBytes, TotalBytes: health.TotalBytes, Full: health.Full, Logs: e.Logs, FailedLogs: f.now.failed,
		Bytes: e.Bytes, HeldBytes: e.HeldBytes, Segments: f.now.segments, Spares: e.SpareSegments,
		Appends: f.total.appends, Writes: f.total.writes, Syncs: f.total.syncs, Rolls: f.total.rolls, Recycled: e.Recycled,
		RemovedBytes: int64(f.total.removed), Corruptions: f.now.corruptions}
	p := &st.Pool
	r.Pools = []Pool{{Name: "chunks", LiveBytes: p.LiveBytes, KeptBytes: p.KeptBytes, FreeBytes: p.FreeBytes, LimitBytes: p.MaxBytes,
		Gets: p.Gets, Misses: p.Misses, Refused: p.Refused},
		{Name: "records", LiveBytes: st.Loops.RecordBytes + int64(st.RecordBytes)}}
	for _, q := range s.Queues() {
		r.Queues = append(r.Queues, Queue{Name: q.Name, Depth: int64(q.Depth), Capacity: int64(q.Capacity), Added: q.Added, Refused: q.Refused})
	}
	r.topics(&f)
}

// topics picks the busiest.
func (r *Report) topics(f *figures) {
	slices.SortStableFunc(f.topics, func(a, b topicFigures) int {
		return cmp.Or(cmp.Compare(b.sums.bytes, a.sums.bytes), cmp.Compare(a.topic.Name, b.topic.Name))
	})
	room := ReportPartitions
	for i := range f.topics {
		t := &f.topics[i]
		if i >= ReportTopics {
			r.TopicsOmitted++
			r.PartitionsOmitted += t.partitions
			continue
		}
		out := Topic{Name: t.topic.Name, Visibility: t.topic.Config().Visibility.String(), PartitionCount: t.partitions,
			BatchesStored: t.batches, MessagesStored: t.messages, BytesStored: t.sums.bytes, Bytes: t.state.bytes,
			Segments: t.segments, Failed: t.failed}
		if t.partitions > room {
			r.PartitionsOmitted += t.partitions
			r.Topics = append(r.Topics, out)
			continue
		}
		room -= t.partitions
		for _, p := range t.topic.Partitions {
			m := p.Marks()
			out.Partitions = append(out.Partitions, Partition{Index: p.Index(), Start: int64(m.Start), HWM: int64(m.Visible), End: int64(m.Written),
				Durable: int64(m.Durable), Bytes: m.Bytes, Segments: m.Segments, BatchesStored: m.Batches, MessagesStored: m.Messages,
				BytesStored: m.Appended, Failed: m.Failed, Corruptions: m.Corruptions})
		}
		r.Topics = append(r.Topics, out)
	}
}

// runtime reads the Go runtime's own figures, without stopping the world.
func (p *Process) runtime() {
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/goal:bytes"}, {Name: "/memory/classes/total:bytes"},
		{Name: "/gc/gomemlimit:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}, {Name: "/cpu/classes/gc/total:cpu-seconds"},
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/allocs:objects"}, {Name: "/sched/goroutines:goroutines"},
	}
	metrics.Read(samples)
	n := func(i int) uint64 {
		if samples[i].Value.Kind() != metrics.KindUint64 {
			return 0
		}
		return samples[i].Value.Uint64()
	}
	p.PID, p.MaxProcs = os.Getpid(), runtime.GOMAXPROCS(0)
	p.HeapBytes, p.HeapGoalBytes, p.RuntimeBytes = int64(n(0)), int64(min(n(1), math.MaxInt64)), int64(n(2))
	if limit := n(3); limit < math.MaxInt64 {
		p.MemoryLimitBytes = int64(limit)
	}
	p.GCs, p.AllocBytes, p.AllocObjects, p.Goroutines = n(4), n(6), n(7), int(n(8))
	if v := samples[5].Value; v.Kind() == metrics.KindFloat64 {
		p.GCCPU = time.Duration(v.Float64() * float64(time.Second))
	}
}
