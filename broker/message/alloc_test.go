package message

import "testing"

// The budgets of the hot paths: nothing per message or per batch, once warm.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("allocation budgets are checked without the race detector")
	}
	s := sampleNamed(t, "full")
	batch := s.build(t)
	lim := DefaultLimits()
	e, section, err := Validate(batch, s.seed, &lim)
	if err != nil {
		t.Fatal(err)
	}
	_, body, err := Split(batch, &e)
	if err != nil {
		t.Fatal(err)
	}
	b := NewBuilder(lim)
	b.KeyHashes = true
	pool := NewPool()
	var r Reader
	var m Message
	out := make([]byte, 0, 4096)
	other := s.messages[0]
	other.Priority--
	full := NewBuilder(Limits{BatchBytes: 4096, MessageBytes: 4096, KeyBytes: 100, Headers: 4, HeaderBytes: 100, Messages: 1, DecompressedBytes: 4096, DecompressedRatio: 9})
	if err := full.Append(&s.messages[0]); err != nil {
		t.Fatal(err)
	}
	budgets := []struct {
		name string
		run  func() bool
	}{
		{"ParseEnvelope", func() bool { _, err := ParseEnvelope(batch, &lim); return err == nil }},
		{"BatchBytes", func() bool { _, err := BatchBytes(batch, &lim); return err == nil }},
		{"VerifyHeader", func() bool { return VerifyHeader(batch, s.seed) == nil }},
		{"VerifyBody", func() bool { return VerifyBody(batch) == nil }},
		{"Validate", func() bool { _, _, err := Validate(batch, s.seed, &lim); return err == nil }},
		{"Split", func() bool { _, _, err := Split(batch, &e); return err == nil }},
		{"Stamp", func() bool { Stamp(batch, s.base, s.time, s.epoch, s.seed); return true }},
		{"AppendEnvelope", func() bool { out = AppendEnvelope(out[:0], &e, s.seed); return true }},
		{"Builder", func() bool {
			b.Reset()
			for i := range s.messages {
				if b.Append(&s.messages[i]) != nil {
					return false
				}
			}
			var err error
			out, err = b.Finish(out[:0], Producer{}, nil)
			return err == nil
		}},
		{"ErrMixed", func() bool { return b.Append(&other) != nil }},
		{"ErrBatchFull", func() bool { return full.Append(&s.messages[0]) == ErrBatchFull }},
		{"Reader", func() bool {
			r.Reset(&e, body, &lim)
			r.SetSection(&section)
			for r.Next(&m) {
			}
			return r.Err() == nil
		}},
		{"Pool", func() bool { m := pool.New(); ok := !m.ID.IsZero(); pool.Free(m); return ok }},
		{"ParseBatch", func() bool { _, _, err := ParseBatch(batch, &lim); return err == nil }},
		{"KeyHash", func() bool { return PartitionFor(s.messages[0].Key, 8) < 8 }},
		{"no batch", func() bool { _, err := ParseEnvelope(out[100:200], &lim); return err != nil }},
	}
	for _, tt := range budgets {
		if !tt.run() { // also warms it up
			t.Errorf("%s failed", tt.name)
		}
		if n := testing.AllocsPerRun(100, func() { tt.run() }); n != 0 {
			t.Errorf("%s allocates %v times, want 0", tt.name, n)
		}
	}
}
