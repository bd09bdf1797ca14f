package report

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/payload"
	"github.com/portask/portask/loadgen/verify"
)

func result() *load.Result {
	phase := load.Phase{
		Name: "total", Measured: true, Seconds: 10, Offered: 20_000, Sent: 20_000, Delivered: 19_999.6, DeliveredMBps: 20.4,
		Latency: load.Latencies{
			E2E: load.Quantiles{Count: 10_000, P50: 1_234_567, P99: 12_345_678, P999: 1_234_567_890, Max: 61_234_567_890},
			Ack: load.Quantiles{P50: 900, P99: 999_999}, Lag: load.Quantiles{P99: 42_000},
		},
	}
	return &load.Result{
		Schema: load.Schema, Scenario: "kv-1k", Hash: "0123", Loop: "open", Ack: "durable", Visibility: "durable", Producers: 3, Consumers: 2, Partitions: 4,
		System: driver.Description{System: "portask", Version: "9"}, Durability: driver.Disk,
		Payload:  load.PayloadInfo{Describe: "json 8 KiB", Size: "1KiB", Codec: "raw", Stats: payload.Stats{MeanBytes: 1024, Entropy: 4.5, Zstd1: 3.25, Zstd1Single: 2.5}},
		Counts:   verify.Counts{Sent: 1_234_567, Acked: 1_234_567, Delivered: 1_234_560, Lost: 7, Foreign: 2},
		Measured: &load.Measured{Total: phase, Phases: []load.Phase{phase}},
		Faults: []load.Fault{{
			Kind: "kill", At: 4, For: 0.6, Recovered: true, Recovery: 1.14, E2E: load.Quantiles{Count: 21_930, Max: 1_200_000_000},
			Of: verify.Span{Messages: 21_931, Lost: 7},
		}},
		Wire:       load.Wire{MessagesPerBatch: 11.9, Bytes: 364_100_000, RawBytes: 555_800_000, Compression: 1.53},
		Target:     &load.TargetUse{CPUPerMillion: 1.25, RSSBytes: 32 << 20, RSSMaxBytes: 33 << 20},
		Violations: []load.Problem{{Kind: load.Lost, Text: "7 acknowledged and not delivered"}},
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	if err := Table(&b, result()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`(?m)^messages +1,234,567 sent, 1,234,567 acknowledged, 1,234,560 delivered`,
		`(?m)^lost +7$`, `(?m)^duplicated +0$`, `(?m)^reordered +0$`, `(?m)^corrupt +0$`,
		`(?m)^rate +20,000 msg/s delivered, 20,000 offered; 20\.4 MB/s$`,
		`(?m)^end to end, faults apart +p50 1\.23ms  p99 12\.3ms  p99\.9 1\.23s  max 1m1\.2s$`,
		`(?m)^fault kill +kill at 4\.0 s for 0\.60 s: 1\.14 s from its end until every partition was on time again; 21931 messages, 7 lost`,
		`(?m)^acknowledged, faults apart +p50 1us  p99 1ms  p99\.9 n/a`, // of fewer than 10,000 values
		`(?m)^compression +1\.53 : 1 \(555\.8 MB of batches as 364\.1 MB`,
		`(?m)^target's process +1\.25 CPU s per million messages, RSS 32\.0 MiB \(at most 33\.0\)$`,
		`(?m)^target +portask 9, 0 topics, 4 partitions, ack durable \(survives: disk\), visibility durable$`,
		`(?m)^payload +json 8 KiB; raw of 1024 B, 4\.50 bits a byte, zstd-1 3\.25 : 1 \(each by itself 2\.50 : 1\)$`,
		`(?m)^VIOLATION +7 acknowledged and not delivered$`,
	} {
		if !regexp.MustCompile(want).MatchString(b.String()) {
			t.Errorf("no line %s in:\n%s", want, b.String())
		}
	}
	r := result()
	r.Loop, r.Faults = "closed", nil
	b.Reset()
	if err := Table(&b, r); err != nil {
		t.Fatal(err)
	}
	if s := b.String(); !strings.Contains(s, "service times") || strings.Contains(s, "offered") || strings.Contains(s, "dispatch lag") || strings.Contains(s, "fault") {
		t.Errorf("closed loop reported as:\n%s", s)
	}
}

// What an invalid run measured is nowhere: no latency, no rate, no line for
// benchstat. The fate of messages is.
func TestInvalidRunShowsNoNumbers(t *testing.T) {
	r := result()
	r.Rejected, r.Measured, r.Faults = r.Measured, nil, nil
	r.Invalid = []load.Problem{{Kind: load.DispatchLag, Phase: "main", Text: "too late"}}
	var b bytes.Buffer
	if err := Table(&b, r); err != nil {
		t.Fatal(err)
	}
	s := b.String()
	if strings.Contains(s, "p99") || strings.Contains(s, "msg/s") || !strings.Contains(s, "main: too late") || !strings.Contains(s, "1,234,560 delivered") {
		t.Errorf("an invalid run is shown as:\n%s", s)
	}
}

func TestProgress(t *testing.T) {
	s := Progress(load.Snapshot{Elapsed: 3 * time.Second, Planned: 24 * time.Second, Last: load.Interval{
		Start: 2, End: 3, Sent: 20_000, Delivered: 19_990, Outstanding: 12_345, Target: &load.TargetSample{CPUs: 0.51, RSSBytes: 32 << 20},
	}})
	for _, want := range []string{"3/24 s", "sent 20,000/s", "delivered 19,990/s", "outstanding 12,345", "target 51 % CPU, 32 MiB"} {
		if !strings.Contains(s, want) {
			t.Errorf("no %q in %q", want, s)
		}
	}
	// An interval in which the generator was the limit has no latency to show.
	late := load.Interval{Start: 2, End: 3, Latency: load.Latencies{E2E: load.Quantiles{P50: 3e6, P99: 7e6}, Ack: load.Quantiles{P99: 6e6}, Lag: load.Quantiles{P99: 2e6}}}
	if s := Progress(load.Snapshot{Last: late}); strings.Contains(s, "3ms") || !strings.Contains(s, "e2e not known, dispatch lag p99 2ms") {
		t.Errorf("a late generator: %q", s)
	}
	if strings.Contains(s, "failed") {
		t.Errorf("failures without any: %q", s)
	}
}
