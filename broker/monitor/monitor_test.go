package monitor

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	commonmodel "github.com/prometheus/common/model"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

// scrape parses /metrics as Prometheus does.
func (r *rig) scrape() map[string]*dto.MetricFamily {
	r.t.Helper()
	status, b, h := r.get("/metrics")
	if status != 200 || !strings.HasPrefix(h.Get("Content-Type"), "text/plain; version=0.0.4") {
		r.t.Fatalf("/metrics: %d, %v", status, h)
	}
	p := expfmt.NewTextParser(commonmodel.UTF8Validation)
	all, err := p.TextToMetricFamilies(bytes.NewReader(b))
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// value finds a series by its labels, "name=value"; -1 if there is none.
func value(all map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	for _, m := range all[name].GetMetric() {
		var have []string
		for _, l := range m.GetLabel() {
			have = append(have, l.GetName()+"="+l.GetValue())
		}
		slices.Sort(have)
		if slices.Equal(have, labels) {
			switch {
			case m.Counter != nil:
				return m.Counter.GetValue()
			case m.Gauge != nil:
				return m.Gauge.GetValue()
			case m.Histogram != nil:
				return float64(m.Histogram.GetSampleCount())
			}
		}
	}
	return -1
}

// What was done is in the scrape, in the Report and in both alike; promlint has
// nothing to say, and each name is documented.
func TestMetricsAndReport(t *testing.T) {
	r := newRig(t, Options{Node: "n7", Version: "1.2.3", Path: t.TempDir(), Interval: IntervalMin})
	if v := value(r.scrape(), "portask_ready"); v != 0 {
		t.Errorf("portask_ready is %v before there is a broker", v)
	}
	r.attach()
	c := r.dial()
	r.topic(c, "orders", 2)
	const n = 20
	for _, level := range []message.AckLevel{message.AckAccepted, message.AckDurable} {
		if err := r.send(c, "orders", n, level); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Admin().DescribeTopic(t.Context(), "nothing"); err == nil {
		t.Error("a topic that is not there is described")
	}
	var rep *Report
	r.until("everything is in the report", func() bool {
		rep = r.report()
		return len(rep.Latencies) == len(LatencyNames()) && rep.Latencies[1].Total.Count == n && rep.Totals.Acks == 2*n
	})
	all := r.scrape()
	for _, want := range []struct {
		v      float64
		name   string
		labels []string
	}{
		{1, "portask_ready", nil},
		{1, "portask_component_ready", []string{"component=logs"}},
		{1, "portask_build_info", []string{"engine=disklog", "node=n7", "version=1.2.3"}},
		{2 * n, "portask_messages_received_total", nil},
		{2 * n, "portask_batches_received_total", []string{"compression=none"}},
		{2 * n, "portask_messages_stored_total", nil},
		{2 * n, "portask_topic_messages_stored_total", []string{"topic=orders"}},
		{2 * n, "portask_acks_sent_total", nil},
		{n, "portask_produce_latency_seconds", []string{"ack=accepted"}},
		{n, "portask_produce_latency_seconds", []string{"ack=durable"}},
		{2, "portask_partitions", nil},
		{2, "portask_topic_partitions", []string{"topic=orders"}},
		{0, "portask_partitions_aggregated", nil},
		{0, "portask_failed_partitions", nil},
	} {
		if got := value(all, want.name, want.labels...); got != want.v {
			t.Errorf("%s%v is %v, want %v", want.name, want.labels, got, want.v)
		}
	}
	hwm := value(all, "portask_partition_high_water_mark", "partition=0", "topic=orders") + value(all, "portask_partition_high_water_mark", "partition=1", "topic=orders")
	if hwm != 2*n {
		t.Errorf("high-water marks add up to %v, want %v", hwm, 2*n)
	}
	if v := value(all, "portask_sync_latency_seconds"); v < 1 {
		t.Errorf("%v syncs were measured", v)
	}

	var fams []*dto.MetricFamily
	kinds := map[string]string{}
	for _, m := range slices.Concat(brokerDescs, systemDescs) {
		kinds[m.name] = m.kind()
	}
	series := 0
	for name, f := range all {
		fams = append(fams, f)
		series += len(f.GetMetric())
		if kind := strings.ToLower(f.GetType().String()); strings.HasPrefix(name, "portask_") && kinds[name] != kind {
			t.Errorf("%s is a %s, the reference says %q", name, kind, kinds[name])
		}
	}
	problems, err := promlint.NewWithMetricFamilies(fams).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
	t.Logf("%d families, %d series", len(fams), series)

	if rep.Version != "1.2.3" || rep.Node != "n7" || rep.Engine != "disklog" || rep.Address != r.s.Addr().String() || !rep.Ready || rep.Cluster == "" {
		t.Errorf("report of %+v", rep)
	}
	if rep.Totals.MessagesIn != 2*n || rep.Totals.MessagesStored != 2*n || rep.Totals.Partitions != 2 || len(rep.Loops) != 2 {
		t.Errorf("totals %+v, %d loops", rep.Totals, len(rep.Loops))
	}
	if len(rep.Topics) != 1 || len(rep.Topics[0].Partitions) != 2 || rep.Topics[0].MessagesStored != 2*n || rep.Topics[0].Visibility != "durable" {
		t.Errorf("topics %+v", rep.Topics)
	}
	p, s := &rep.Process, &rep.System
	if p.PID != os.Getpid() || p.CPU <= 0 || p.RSSBytes <= 0 || p.Goroutines < 5 || p.HeapBytes <= 0 || s.Processors < 1 || s.MemoryBytes <= 0 || s.Disk == nil {
		t.Errorf("process %+v, system %+v", p, s)
	}
	for _, l := range rep.Latencies {
		q := l.Total
		if q.P50 > q.P90 || q.P90 > q.P99 || q.P99 > q.P999 || q.P999 > q.Max || q.Count > 0 && (q.P50 <= 0 || q.Mean <= 0 || q.Mean > q.Max) {
			t.Errorf("%s: %+v", l.Name, q)
		}
	}
	for _, q := range rep.Queues {
		if q.Depth < 0 || q.Capacity > 0 && q.Depth > q.Capacity {
			t.Errorf("queue %+v", q)
		}
	}

	// A topic that goes takes no total along.
	if err := c.Admin().DeleteTopic(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	if all := r.scrape(); value(all, "portask_messages_stored_total") != 2*n || value(all, "portask_topic_messages_stored_total", "topic=orders") != -1 {
		t.Error("after the topic was deleted: the total went down, or the topic is still there")
	}
}

// ready asks /readyz and returns the reasons by component.
func (r *rig) ready() (status int, reasons map[string]Component) {
	r.t.Helper()
	status, b, _ := r.get("/readyz")
	var out struct {
		Ready      bool
		Components []Component
	}
	if err := json.Unmarshal(b, &out); err != nil || out.Ready != (status == 200) {
		r.t.Fatalf("/readyz: %d %s, %v", status, b, err)
	}
	reasons = map[string]Component{}
	for _, c := range out.Components {
		if !c.Ready {
			reasons[c.Name] = c
		}
	}
	return status, reasons
}

// From its start to its end a broker says whether it should be sent work, and why
// not.
func TestReadiness(t *testing.T) {
	r := newRig(t, Options{})
	if status, why := r.ready(); status != 503 || len(why) != 3 {
		t.Errorf("before there is a broker: %d, %v", status, why)
	}
	if status, _, _ := r.get("/healthz"); status != 200 {
		t.Errorf("it is not alive either: %d", status)
	}
	r.attach()
	isReady := func() bool { status, _ := r.ready(); return status == 200 }
	r.until("ready", isReady)

	r.full.Store(true)
	r.until("the full disk is noticed", func() bool { return !isReady() })
	if status, why := r.ready(); status != 503 || len(why) != 1 || why[componentStorage].Code != fault.StorageFull.String() {
		t.Errorf("with a full disk: %d, %v", status, why)
	}
	if v := value(r.scrape(), "portask_storage_full"); v != 1 {
		t.Errorf("portask_storage_full is %v", v)
	}
	r.full.Store(false)
	r.until("space is noticed", isReady)

	c := r.dial()
	r.topic(c, "sick", 1)
	r.sick.Store(true)
	if err := r.send(c, "sick", 1, message.AckDurable); err == nil {
		t.Fatal("a sync that failed was acknowledged")
	}
	if status, why := r.ready(); status != 503 || len(why) != 1 || why[componentLogs].Code != fault.StorageFailed.String() || !strings.Contains(why[componentLogs].Reason, "sick") {
		t.Errorf("with a failed log: %d, %v", status, why)
	}
	if v := value(r.scrape(), "portask_topic_failed_partitions", "topic=sick"); v != 1 {
		t.Errorf("%v failed partitions", v)
	}
	if err := c.Admin().DeleteTopic(t.Context(), "sick"); err != nil {
		t.Fatal(err)
	}
	if !isReady() {
		t.Error("not ready although the failed log is gone")
	}

	r.stop()
	if status, why := r.ready(); status != 503 || why[componentListener].Code != fault.ShuttingDown.String() {
		t.Errorf("after the end: %d, %v", status, why)
	}
	if rep := r.report(); rep.Ready {
		t.Error("the report calls a broker ready that has ended")
	}
	r.scrape()
}

// However many topics there are, there are so many series, and what is left out
// is in "(other)". No counter goes down when topics come and go.
func TestSeriesAreBounded(t *testing.T) {
	if wire.CheckTopicName(otherTopics) == nil {
		t.Fatalf("a topic may be called %q", otherTopics)
	}
	r := newRig(t, Options{TopicSeries: 3, PartitionSeries: 4})
	r.attach()
	c := r.dial()
	names := []string{"a", "b", "c", "d", "e", "f"}
	series := func(all map[string]*dto.MetricFamily, name string) int { return len(all[name].GetMetric()) }
	for i, name := range names {
		r.topic(c, name, 1+i%3) // a 1, b 2, c 3: too many for the partitions left, ...
		if err := r.send(c, name, i+1, message.AckAccepted); err != nil {
			t.Fatal(err)
		}
		r.scrape() // which gives out the series
	}
	all := r.scrape()
	if n := series(all, "portask_topic_messages_stored_total"); n != 4 {
		t.Errorf("%d series by topic, want 3 and %s", n, otherTopics)
	}
	if n := series(all, "portask_partition_high_water_mark"); n != 3 {
		t.Errorf("%d series by partition, want those of a and b", n)
	}
	for name, want := range map[string]float64{"a": 1, "c": 3, "d": -1, otherTopics: 4 + 5 + 6} {
		if v := value(all, "portask_topic_messages_stored_total", "topic="+name); v != want {
			t.Errorf("topic %s has %v messages, want %v", name, v, want)
		}
	}
	if a, b := value(all, "portask_topics_aggregated"), value(all, "portask_partitions_aggregated"); a != 3 || b != 12-3 {
		t.Errorf("%v topics and %v partitions are left out, want 3 and 9", a, b)
	}
	// One of each kind goes, one comes: it gets the series that became free, and
	// those that had none still have none.
	for _, name := range []string{"a", "f"} {
		if err := c.Admin().DeleteTopic(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	r.scrape()
	r.topic(c, "g", 2)
	if err := r.send(c, "g", 7, message.AckAccepted); err != nil {
		t.Fatal(err)
	}
	all = r.scrape()
	for name, want := range map[string]float64{"a": -1, "g": 7, "d": -1, otherTopics: 4 + 5 + 6} {
		if v := value(all, "portask_topic_messages_stored_total", "topic="+name); v != want {
			t.Errorf("after two went and one came: topic %s has %v messages, want %v", name, v, want)
		}
	}
	if v := value(all, "portask_messages_stored_total"); v != 1+2+3+4+5+6+7 {
		t.Errorf("%v messages in all", v)
	}
	if n := series(all, "portask_partition_high_water_mark"); n != 4 {
		t.Errorf("%d series by partition, want those of b and g", n)
	}
}

// Profiles are what `go tool pprof` reads, one at a time, and bounded.
func TestProfiles(t *testing.T) {
	r := newRig(t, Options{MutexFraction: 10, BlockRate: time.Millisecond, FlightBytes: FlightBytesMin, FlightAge: FlightAgeMin})
	for _, path := range []string{"profile?seconds=1", "heap", "mutex", "block", "goroutine", "allocs"} {
		status, b, _ := r.get("/debug/pprof/" + path)
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil || status != 200 {
			t.Errorf("%s: %d, %v", path, status, err)
			continue
		}
		raw, err := io.ReadAll(z)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if err := checkProfile(raw); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, path := range []string{"/debug/pprof/trace?seconds=0.1", "/debug/flight"} {
		if status, b, _ := r.get(path); status != 200 || !bytes.HasPrefix(b, []byte("go 1.")) {
			t.Errorf("%s: %d, %.20q", path, status, b)
		}
	}
	for path, want := range map[string]int{
		"/debug/pprof/profile?seconds=301":  fault.TooLarge.Info().HTTP,
		"/debug/pprof/profile?seconds=-1":   fault.TooLarge.Info().HTTP,
		"/debug/pprof/profile?seconds=NaN":  fault.TooLarge.Info().HTTP,
		"/debug/pprof/trace?seconds=a":      fault.Invalid.Info().HTTP,
		"/debug/pprof/nothing-of-that-name": http.StatusNotFound,
	} {
		if status, b, _ := r.get(path); status != want {
			t.Errorf("%s: %d %s, want %d", path, status, b, want)
		}
	}
	r.m.profiles.busy.Lock()
	status, b, h := r.get("/debug/pprof/profile?seconds=1")
	r.m.profiles.busy.Unlock()
	if status != fault.ResourceExhausted.Info().HTTP || h.Get("Retry-After") == "" {
		t.Errorf("a second one at once: %d %s %v", status, b, h)
	}
	if n := runtime.SetMutexProfileFraction(-1); n != 10 {
		t.Errorf("one in %d waits is sampled, want 10", n)
	}
	if err := r.m.Reload(Options{MutexFraction: 3, Interval: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if n := runtime.SetMutexProfileFraction(-1); n != 3 {
		t.Errorf("after a reload one in %d waits is sampled, want 3", n)
	}
	if err := r.m.Reload(Options{MutexFraction: -3}); fault.CodeOf(err) != fault.Invalid || runtime.SetMutexProfileFraction(-1) != 3 {
		t.Errorf("a reload with a wrong value: %v", err)
	}
	if err := r.m.Close(); err != nil {
		t.Fatal(err)
	}
	if n := runtime.SetMutexProfileFraction(-1); n != 0 {
		t.Errorf("after the end one in %d waits is sampled", n)
	}
	if err := r.m.Reload(Options{}); err != nil {
		t.Errorf("a reload after the end: %v", err)
	}
}

// checkProfile walks a profile's outermost message (github.com/google/pprof,
// proto/profile.proto): every field well-formed, sample types and strings there,
// the first string empty.
func checkProfile(b []byte) error {
	varint := func() (v uint64, ok bool) {
		for shift := 0; shift < 64 && len(b) > 0; shift += 7 {
			c := b[0]
			b = b[1:]
			v |= uint64(c&0x7f) << shift
			if c < 0x80 {
				return v, true
			}
		}
		return 0, false
	}
	seen := map[uint64]int{}
	var strs []string
	for len(b) > 0 {
		tag, ok := varint()
		if !ok {
			return fault.New(fault.Corrupted, "tag")
		}
		seen[tag>>3]++
		n, ok := varint()
		switch {
		case !ok || tag&7 != 0 && tag&7 != 2:
			return fault.New(fault.Corrupted, "field")
		case tag&7 == 0:
		case n > uint64(len(b)):
			return fault.New(fault.Corrupted, "length")
		default:
			if tag>>3 == 6 {
				strs = append(strs, string(b[:n]))
			}
			b = b[n:]
		}
	}
	if seen[1] == 0 || len(strs) < 2 || strs[0] != "" {
		return fault.New(fault.Corrupted, "profile").WithDetail("%v", seen)
	}
	return nil
}

func TestProfilingOff(t *testing.T) {
	r := newRig(t, Options{NoProfiling: true})
	for _, path := range []string{"/debug/pprof/heap", "/debug/flight", "/"} {
		if status, _, _ := r.get(path); status != 404 {
			t.Errorf("%s: %d", path, status)
		}
	}
	on := newRig(t, Options{})
	if status, b, _ := on.get("/debug/flight"); status != 404 || !bytes.Contains(b, []byte("flight_recorder")) {
		t.Errorf("a flight recorder that is off: %d %s", status, b)
	}
}
