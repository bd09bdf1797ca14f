package monitor

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/monitor/latency"
	"github.com/portask/portask/broker/server"
)

// register makes the registry: the broker's figures, and those of the process
// and the Go runtime by the library's own collectors.
func (m *Monitor) register() error {
	m.registry = prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		brokerCollector{m},
		systemCollector{m},
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsGC, collectors.MetricsScheduler)),
	} {
		if err := m.registry.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// otherTopics is the label of what has no series of its own: no topic can have
// the name.
const otherTopics = "(other)"

// metric is what the reference says of one.
type metric struct {
	name, help string
	labels     []string
	desc       *prometheus.Desc
}

// described makes descriptions and remembers them.
type described []metric

func (d *described) desc(name, help string, labels ...string) *prometheus.Desc {
	m := metric{"portask_" + name, help, labels, prometheus.NewDesc("portask_"+name, help, labels, nil)}
	*d = append(*d, m)
	return m.desc
}

// The broker's metrics. The reference in docs/monitoring.md is written from here
// by a test.
var (
	brokerDescs described

	dBuild     = brokerDescs.desc("build_info", "Version of the broker, its node id and storage engine; always 1.", "version", "node", "engine")
	dReady     = brokerDescs.desc("ready", "Whether the broker should be sent work: 1 or 0, as /readyz.")
	dComponent = brokerDescs.desc("component_ready", "Readiness by component.", "component")

	dConns      = brokerDescs.desc("connections", "Open client connections.")
	dOpened     = brokerDescs.desc("connections_opened_total", "Client connections accepted.")
	dClosed     = brokerDescs.desc("connections_closed_total", "Client connections closed.")
	dRefused    = brokerDescs.desc("connections_refused_total", "Client connections refused: over network.max_connections, or no descriptor was left.")
	dProducers  = brokerDescs.desc("producers", "Open producers.")
	dSubs       = brokerDescs.desc("subscriptions", "Open subscriptions, one for each partition that is consumed, and waiting fetches.")
	dFrames     = brokerDescs.desc("frames_received_total", "Frames of the protocol taken from clients.")
	dErrors     = brokerDescs.desc("errors_sent_total", "ERROR frames sent, by the code of docs/errors.md.", "code")
	dCreditFree = brokerDescs.desc("credit_free_bytes", "Credit that producers may still be granted, of performance.produce_memory.")

	dBatchesIn  = brokerDescs.desc("batches_received_total", "Batches received from producers and found whole, by compression algorithm.", "compression")
	dMessagesIn = brokerDescs.desc("messages_received_total", "Messages in the batches received.")
	dBytesIn    = brokerDescs.desc("received_bytes_total", "Bytes of the batches received, as sent.")
	dPlainIn    = brokerDescs.desc("received_uncompressed_bytes_total", "Bytes of the messages of the batches received, uncompressed, as declared.")
	dAcks       = brokerDescs.desc("acks_sent_total", "Acknowledgements sent to producers.")
	dDuplicates = brokerDescs.desc("duplicate_batches_total", "Batches that an idempotent producer sent again and that were stored already.")

	dDelivers    = brokerDescs.desc("deliver_frames_total", "Frames of messages sent to consumers, by where the messages came from: memory or log.", "source")
	dBatchesOut  = brokerDescs.desc("batches_delivered_total", "Batches sent to consumers.")
	dMessagesOut = brokerDescs.desc("messages_delivered_total", "Messages in the batches sent to consumers.")
	dBytesOut    = brokerDescs.desc("delivered_bytes_total", "Bytes of the batches sent to consumers.")
	dLeases      = brokerDescs.desc("deliveries_resumed_total", "Half-sent frames whose memory was gone and that went on from the log: consumers too slow for performance.tail_memory.")

	dSockIn    = brokerDescs.desc("network_received_bytes_total", "Bytes read from client connections.")
	dSockOut   = brokerDescs.desc("network_sent_bytes_total", "Bytes written to client connections.")
	dCalls     = brokerDescs.desc("network_syscalls_total", "System calls of the event loops, by kind, those that would have blocked included.", "call")
	dAcceptErr = brokerDescs.desc("accept_errors_total", "Connections that could not be accepted: out of descriptors or memory.")
	dStarved   = brokerDescs.desc("connections_starved_total", "Times a connection was left unread for lack of memory for its frames.")
	dInBytes   = brokerDescs.desc("network_input_buffer_bytes", "Memory of frames that are not whole yet.")
	dOutBytes  = brokerDescs.desc("network_output_buffer_bytes", "Memory of answers that clients have not read yet.")
	dTurns     = brokerDescs.desc("loop_turns_total", "Turns of an event loop.", "loop")
	dLoopConns = brokerDescs.desc("loop_connections", "Open connections of an event loop.", "loop")
	dLoopIn    = brokerDescs.desc("loop_frames_received_total", "Frames taken by an event loop.", "loop")

	dQueue    = brokerDescs.desc("queue_depth", "What waits in a queue.", "queue")
	dQueueCap = brokerDescs.desc("queue_capacity", "The most that a queue takes; those bounded by what their entries belong to are left out.", "queue")

	dQueued     = brokerDescs.desc("queue_added_total", "What was put into a queue; queues that do not count it are left out.", "queue")
	dQueueDeep  = brokerDescs.desc("queue_deepest", "The most that waited in a queue at once since the start; queues that do not count it are left out.", "queue")
	dQueueWait  = brokerDescs.desc("queue_waited_total", "Work that found all workers of its pool busy when it was put into a queue.", "queue")
	dQueueNo    = brokerDescs.desc("queue_refused_total", "Offers that found a queue full and were refused with an error.", "queue")
	dWorkers    = brokerDescs.desc("workers", "Goroutines of a worker pool: syncs, deferred appends, history, requests.", "pool")
	dWorkersMax = brokerDescs.desc("workers_limit", "The most goroutines that a worker pool takes.", "pool")
	dWorkersNew = brokerDescs.desc("workers_started_total", "Goroutines of a worker pool that began.", "pool")
	dWorkersOn  = brokerDescs.desc("workers_busy", "Goroutines of a worker pool that have work now.", "pool")

	dPoolLive    = brokerDescs.desc("pool_live_bytes", "Memory of a pool in use, kept recent batches included: chunks of batches; records of connections, producers and subscriptions.", "pool")
	dPoolKept    = brokerDescs.desc("pool_kept_bytes", "Memory of a pool that keeps recent batches for consumers at the tail.", "pool")
	dPoolFree    = brokerDescs.desc("pool_free_bytes", "Memory of a pool that is free for reuse.", "pool")
	dPoolLimit   = brokerDescs.desc("pool_limit_bytes", "The most memory that a pool lends.", "pool")
	dPoolGets    = brokerDescs.desc("pool_gets_total", "Times memory was taken from a pool.", "pool")
	dPoolMisses  = brokerDescs.desc("pool_misses_total", "Times a pool had to ask the system for memory.", "pool")
	dPoolRefused = brokerDescs.desc("pool_refused_total", "Times a pool was at its limit and refused.", "pool")
	dPoolTrimmed = brokerDescs.desc("pool_trimmed_bytes_total", "Free memory of a pool given back to the system because the demand did not need it.", "pool")

	dFree      = brokerDescs.desc("storage_free_bytes", "Bytes that the engine can still store.")
	dSize      = brokerDescs.desc("storage_size_bytes", "What the free bytes are counted against: the file system, or the engine's memory.")
	dFull      = brokerDescs.desc("storage_full", "Whether producing is refused for lack of space: 1 or 0.")
	dHeld      = brokerDescs.desc("storage_held_bytes", "Bytes that left the logs and are still being delivered.")
	dSpares    = brokerDescs.desc("storage_spare_segments", "Segments ready for use.")
	dRecycled  = brokerDescs.desc("storage_recycled_segments_total", "Segments used again instead of being created.")
	dMeta      = brokerDescs.desc("storage_metadata_writes_total", "Writes of metadata: topics and dictionaries.")
	dTopics    = brokerDescs.desc("topics", "Topics.")
	dParts     = brokerDescs.desc("partitions", "Partitions of all topics.")
	dFailed    = brokerDescs.desc("failed_partitions", "Partitions that take no more batches: a write or a sync failed.")
	dCorrupt   = brokerDescs.desc("corrupt_ranges", "Ranges of offsets that were lost to damage and are skipped.")
	dLogBytes  = brokerDescs.desc("log_bytes", "Bytes of batches in all logs.")
	dSegments  = brokerDescs.desc("log_segments", "Segments of all logs.")
	dStoredB   = brokerDescs.desc("batches_stored_total", "Batches appended to logs.")
	dStoredM   = brokerDescs.desc("messages_stored_total", "Messages appended to logs.")
	dStored    = brokerDescs.desc("stored_bytes_total", "Bytes appended to logs.")
	dAppends   = brokerDescs.desc("log_appends_total", "Gathered appends, of one or many batches.")
	dWrites    = brokerDescs.desc("log_writes_total", "Write system calls for batches, or the engine's equivalent.")
	dSyncs     = brokerDescs.desc("log_syncs_total", "Syncs of logs.")
	dRolls     = brokerDescs.desc("log_rolls_total", "Segments started after a log's first.")
	dRemoved   = brokerDescs.desc("log_removed_bytes_total", "Bytes removed by retention.")
	dTopicsOwn = brokerDescs.desc("topics_aggregated", "Topics without metrics of their own: they are summed as topic \"(other)\". See monitoring.topic_series.")
	dPartsOwn  = brokerDescs.desc("partitions_aggregated", "Partitions without metrics of their own. See monitoring.partition_series.")

	dTopicB      = brokerDescs.desc("topic_batches_stored_total", "Batches appended to a topic's logs.", "topic")
	dTopicM      = brokerDescs.desc("topic_messages_stored_total", "Messages appended to a topic's logs.", "topic")
	dTopicStored = brokerDescs.desc("topic_stored_bytes_total", "Bytes appended to a topic's logs.", "topic")
	dTopicBytes  = brokerDescs.desc("topic_log_bytes", "Bytes of batches in a topic's logs.", "topic")
	dTopicSegs   = brokerDescs.desc("topic_log_segments", "Segments of a topic's logs.", "topic")
	dTopicParts  = brokerDescs.desc("topic_partitions", "Partitions of a topic.", "topic")
	dTopicFailed = brokerDescs.desc("topic_failed_partitions", "Partitions of a topic that take no more batches.", "topic")
	dTopicLag    = brokerDescs.desc("topic_durable_lag", "Messages of a topic that are stored and not yet durable.", "topic")

	dChosen    = brokerDescs.desc("adaptive_batches_total", "Batches for which adaptive producers of a topic chose an algorithm and level, as they reported; none are those sent as they are without an attempt.", "topic", "compression", "level")
	dChosenIn  = brokerDescs.desc("adaptive_in_bytes_total", "Bytes of those batches' bodies, uncompressed.", "topic", "compression", "level")
	dChosenOut = brokerDescs.desc("adaptive_out_bytes_total", "Bytes of those batches' bodies, as sent.", "topic", "compression", "level")
	dDiscarded = brokerDescs.desc("adaptive_discarded_total", "Of those batches, the ones that were sent as they were because compressing saved too little.", "topic", "compression", "level")
	dSwitches  = brokerDescs.desc("adaptive_switches_total", "Changes of the algorithm or level in use, by adaptive producers of a topic.", "topic")

	dPartStart  = brokerDescs.desc("partition_log_start_offset", "Oldest offset of a partition.", "topic", "partition")
	dPartHWM    = brokerDescs.desc("partition_high_water_mark", "End, exclusive, of what consumers of a partition may read.", "topic", "partition")
	dPartEnd    = brokerDescs.desc("partition_log_end_offset", "Offset that follows the last message stored in a partition.", "topic", "partition")
	dPartLag    = brokerDescs.desc("partition_durable_lag", "Messages of a partition that are stored and not yet durable.", "topic", "partition")
	dPartBytes  = brokerDescs.desc("partition_log_bytes", "Bytes of batches in a partition's log.", "topic", "partition")
	dPartSegs   = brokerDescs.desc("partition_log_segments", "Segments of a partition's log.", "topic", "partition")
	dPartFailed = brokerDescs.desc("partition_failed", "Whether a partition takes no more batches: 1 or 0.", "topic", "partition")

	dProduce = brokerDescs.desc("produce_latency_seconds", "From the turn of the event loop that took a batch to its acknowledgement, by ack level.", "ack")
	dAppend  = brokerDescs.desc("append_latency_seconds", "Duration of a gathered append to a log.")
	dSync    = brokerDescs.desc("sync_latency_seconds", "Duration of a sync of a log.")
	dDeliver = brokerDescs.desc("deliver_latency_seconds", "From a batch becoming visible to the frame with it being handed to the kernel, for subscriptions that kept up and had credit.")
)

// emitter makes metrics of one scrape.
type emitter chan<- prometheus.Metric

func (e emitter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	e <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (e emitter) count(d *prometheus.Desc, v uint64, labels ...string) {
	e <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// brokerCollector takes a scrape's figures from the broker. It holds nothing.
type brokerCollector struct{ m *Monitor }

func (c brokerCollector) Describe(ch chan<- *prometheus.Desc) {
	for i := range brokerDescs {
		ch <- brokerDescs[i].desc
	}
}

func (c brokerCollector) Collect(ch chan<- prometheus.Metric) {
	e, m := emitter(ch), c.m
	s := m.broker.Load()
	engine := ""
	if s != nil {
		engine = s.Engine()
	}
	e.gauge(dBuild, 1, m.opts.Version, m.opts.Node, engine)
	ready, all := m.components()
	e.gauge(dReady, number(ready))
	for _, p := range all {
		e.gauge(dComponent, number(p.Ready), p.Name)
	}
	if s == nil {
		return
	}
	e.traffic(s)
	e.loops(s)
	e.storage(s, &m.ledger)
	e.latencies(&m.lat)
}

func (e emitter) traffic(s *server.Server) {
	st := s.Stats()
	e.gauge(dConns, float64(st.Connections))
	e.count(dOpened, st.Opened)
	e.count(dClosed, st.Closed)
	e.count(dRefused, st.Loops.Refused)
	e.gauge(dProducers, float64(st.Producers))
	e.gauge(dSubs, float64(st.Subscriptions))
	e.count(dFrames, st.Frames)
	byName := map[string]uint64{}
	for code, n := range s.Errors() {
		name := code.Info().Name
		if !code.Known() {
			name = "other"
		}
		byName[name] += n
	}
	for name, n := range byName {
		e.count(dErrors, n, name)
	}
	e.gauge(dCreditFree, float64(s.CreditFreeBytes()))
	for alg, n := range st.BatchesBy {
		e.count(dBatchesIn, n, message.Algorithm(alg).String())
	}
	e.count(dMessagesIn, st.MessagesIn)
	e.count(dBytesIn, st.BytesIn)
	e.count(dPlainIn, st.UncompressedIn)
	e.count(dAcks, st.Acks)
	e.count(dDuplicates, st.Duplicates)
	e.count(dDelivers, st.Delivers-st.HistoryReads, "memory")
	e.count(dDelivers, st.HistoryReads, "log")
	e.count(dBatchesOut, st.BatchesOut)
	e.count(dMessagesOut, st.MessagesOut)
	e.count(dBytesOut, st.BytesOut)
	e.count(dLeases, st.Leases)

	n := &st.Loops
	e.count(dSockIn, n.BytesIn)
	e.count(dSockOut, n.BytesOut)
	for call, v := range map[string]uint64{"read": n.Reads, "write": n.Writes, "sendfile": n.Sendfiles, "wait": n.Waits, "accept": n.Accepts} {
		e.count(dCalls, v, call)
	}
	e.count(dAcceptErr, n.AcceptErrors)
	e.count(dStarved, n.Starved)
	e.gauge(dInBytes, float64(n.InBorrowedBytes))
	e.gauge(dOutBytes, float64(n.OutQueuedBytes))

	p := &st.Pool
	const chunks = "chunks"
	e.gauge(dPoolLive, float64(p.LiveBytes), chunks)
	e.gauge(dPoolKept, float64(p.KeptBytes), chunks)
	e.gauge(dPoolFree, float64(p.FreeBytes), chunks)
	e.gauge(dPoolLimit, float64(p.MaxBytes), chunks)
	e.count(dPoolGets, p.Gets, chunks)
	e.count(dPoolMisses, p.Misses, chunks)
	e.count(dPoolRefused, p.Refused, chunks)
	e.count(dPoolTrimmed, uint64(p.TrimmedBytes), chunks)
	e.gauge(dPoolLive, float64(st.Loops.RecordBytes)+float64(st.RecordBytes), "records")
	for _, q := range s.Queues() {
		e.gauge(dQueue, float64(q.Depth), q.Name)
		if q.Capacity > 0 {
			e.gauge(dQueueCap, float64(q.Capacity), q.Name)
		}
		if q.Added > 0 {
			e.count(dQueued, q.Added, q.Name)
			e.gauge(dQueueDeep, float64(q.Deepest), q.Name)
			e.count(dQueueWait, q.Waited, q.Name)
		}
		e.count(dQueueNo, q.Refused, q.Name)
	}
	for _, w := range s.Workers() {
		e.gauge(dWorkers, float64(w.Workers), w.Name)
		e.gauge(dWorkersMax, float64(w.Most), w.Name)
		e.gauge(dWorkersOn, float64(w.Busy), w.Name)
		e.count(dWorkersNew, w.Started, w.Name)
	}
	g := &st.Storage
	e.gauge(dHeld, float64(g.HeldBytes))
	e.gauge(dSpares, float64(g.SpareSegments))
	e.count(dRecycled, g.Recycled)
	e.count(dMeta, g.MetaWrites)
}

func (e emitter) loops(s *server.Server) {
	for i, l := range s.LoopStats() {
		name := strconv.Itoa(i)
		e.count(dTurns, l.Network.Turns, name)
		e.gauge(dLoopConns, float64(l.Connections), name)
		e.count(dLoopIn, l.Frames, name)
	}
}

func (e emitter) storage(s *server.Server, l *ledger) {
	space := s.Space()
	e.gauge(dFree, float64(space.FreeBytes))
	e.gauge(dSize, float64(space.TotalBytes))
	e.gauge(dFull, number(space.Full))

	durable := s.Levels().Has(message.AckDurable)
	f := l.read(s.Topics(), durable)
	e.gauge(dTopics, float64(len(f.topics)))
	e.gauge(dParts, float64(f.now.partitions))
	e.gauge(dFailed, float64(f.now.failed))
	e.gauge(dCorrupt, float64(f.now.corruptions))
	e.gauge(dLogBytes, float64(f.now.bytes))
	e.gauge(dSegments, float64(f.now.segments))
	e.count(dStoredB, f.total.batches)
	e.count(dStoredM, f.total.messages)
	e.count(dStored, f.total.bytes)
	e.count(dAppends, f.total.appends)
	e.count(dWrites, f.total.writes)
	e.count(dSyncs, f.total.syncs)
	e.count(dRolls, f.total.rolls)
	e.count(dRemoved, f.total.removed)
	e.gauge(dTopicsOwn, float64(f.otherTopics))
	e.gauge(dPartsOwn, float64(f.withoutPartition))

	for i := range f.topics {
		t := &f.topics[i]
		if !t.own {
			continue
		}
		e.topic(t.topic.Name, &t.sums, &t.state)
		if !t.parts {
			continue
		}
		for _, p := range t.topic.Partitions {
			m, labels := p.Marks(), []string{t.topic.Name, strconv.Itoa(int(p.Index()))}
			e.gauge(dPartStart, float64(m.Start), labels...)
			e.gauge(dPartHWM, float64(m.Visible), labels...)
			e.gauge(dPartEnd, float64(m.Written), labels...)
			if durable {
				e.gauge(dPartLag, float64(m.Written-m.Durable), labels...)
			}
			e.gauge(dPartBytes, float64(m.Bytes), labels...)
			e.gauge(dPartSegs, float64(m.Segments), labels...)
			e.gauge(dPartFailed, number(m.Failed), labels...)
		}
	}
	own := make(map[string]bool, len(f.topics))
	for i := range f.topics {
		own[f.topics[i].topic.Name] = f.topics[i].own
	}
	e.choices(s, own)
	if f.otherTopics > 0 || f.other != (sums{}) {
		e.topic(otherTopics, &f.other, &f.otherNow)
	}
}

func (e emitter) topic(name string, s *sums, now *state) {
	e.count(dTopicB, s.batches, name)
	e.count(dTopicM, s.messages, name)
	e.count(dTopicStored, s.bytes, name)
	e.gauge(dTopicBytes, float64(now.bytes), name)
	e.gauge(dTopicSegs, float64(now.segments), name)
	e.gauge(dTopicParts, float64(now.partitions), name)
	e.gauge(dTopicFailed, float64(now.failed), name)
	e.gauge(dTopicLag, float64(now.lag), name)
}

// The borders of exported histograms are powers of two nanoseconds, which the
// recorders' buckets respect, so that the counts are exact: from 16 us to 17 s.
const (
	borderFirst = 14
	borderLast  = 34
)

func (e emitter) latencies(l *latencies) {
	var c latency.Counts
	for k, d := range []struct {
		desc   *prometheus.Desc
		labels []string
	}{
		latency.Accepted: {dProduce, []string{message.AckAccepted.String()}},
		latency.Durable:  {dProduce, []string{message.AckDurable.String()}},
		latency.Append:   {desc: dAppend},
		latency.Sync:     {desc: dSync},
		latency.Deliver:  {desc: dDeliver},
	} {
		if !l.read(latency.Kind(k), &c) {
			return
		}
		e <- histogram(d.desc, &c, d.labels...)
	}
}

// histogram makes a metric of buckets. The sum is that of the buckets' middles:
// within 1.6 %.
func histogram(d *prometheus.Desc, c *latency.Counts, labels ...string) prometheus.Metric {
	buckets := make(map[float64]uint64, borderLast-borderFirst+1)
	n, sum, i := uint64(0), 0.0, 0
	for border := borderFirst; border <= borderLast; border++ {
		for ; i < latency.Buckets && latency.Lower(i+1) <= 1<<border; i++ {
			n += c[i]
			sum += float64(c[i]) * float64(latency.Middle(i))
		}
		buckets[float64(int64(1)<<border)/1e9] = n
	}
	for ; i < latency.Buckets; i++ {
		n += c[i]
		sum += float64(c[i]) * float64(latency.Middle(i))
	}
	return prometheus.MustNewConstHistogram(d, n, sum/1e9, buckets, labels...)
}
