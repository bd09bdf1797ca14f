package wire

import (
	"testing"

	"github.com/portask/portask/broker/message"
)

// hot is what is done for every batch, so it may not allocate.
var hot = []struct {
	name string
	// prepare returns one operation.
	prepare func(tb testing.TB) (do func())
}{
	{"frame=header/op=parse", func(tb testing.TB) func() {
		b := AppendHeader(nil, Header{Length: 1000, Opcode: OpProduce, Correlation: 1, Handle: 2})
		return func() {
			h, err := ParseHeader(b, DefaultMaxFrame)
			if err != nil || h.Handle != 2 {
				tb.Fatal(h, err)
			}
		}
	}},
	{"frame=header/op=append", func(tb testing.TB) func() {
		buf := make([]byte, 0, 64)
		h := Header{Length: 1000, Opcode: OpProduce, Correlation: 1, Handle: 2}
		return func() {
			if len(AppendHeader(buf[:0], h)) != HeaderBytes {
				tb.Fatal()
			}
		}
	}},
	{"frame=produce/op=parse", func(tb testing.TB) func() {
		b := (&Produce{Partition: 3, Batch: make([]byte, 64<<10)}).Append(nil)
		return func() {
			partition, opts, batch, err := ParseProduce(b)
			if partition != 3 || len(opts) != 0 || len(batch) != 64<<10 || err != nil {
				tb.Fatal(partition, opts, len(batch), err)
			}
		}
	}},
	{"frame=produce/op=append", func(tb testing.TB) func() {
		buf := make([]byte, 0, 64)
		return func() {
			if len(AppendProduceFrame(buf[:0], Header{Handle: 1}, 3, 64<<10)) != HeaderBytes+ProduceHeadBytes {
				tb.Fatal()
			}
		}
	}},
	{"frame=produce_ok/op=parse", func(tb testing.TB) func() {
		b := (&ProduceOK{Partition: 3, BaseOffset: 1000, Credit: 65000}).Append(nil)
		return func() {
			var x ProduceOK
			if err := x.Parse(b); err != nil || x.BaseOffset != 1000 {
				tb.Fatal(x, err)
			}
		}
	}},
	{"frame=produce_ok/op=append", func(tb testing.TB) func() {
		buf := make([]byte, 0, 64)
		x := ProduceOK{Partition: 3, BaseOffset: 1000, Credit: 65000}
		return func() {
			b, mark := BeginFrame(buf[:0], Header{Opcode: OpProduce.Response(), Handle: 1})
			if len(EndFrame(x.Append(b), mark)) != HeaderBytes+ProduceOKBytes {
				tb.Fatal()
			}
		}
	}},
	{"frame=deliver/op=parse", func(tb testing.TB) func() {
		d := sampleDelivery()
		b := append(AppendDeliverHead(nil, &d), make([]byte, d.BatchBytes())...)
		var x DeliverHead
		return func() {
			batches, err := ParseDeliver(b, &x)
			if err != nil || len(x.Runs) != 4 || len(x.Ranges) != 2 || len(batches) != d.BatchBytes() {
				tb.Fatal(x, err)
			}
		}
	}},
	{"frame=deliver/op=append", func(tb testing.TB) func() {
		d := sampleDelivery()
		buf := make([]byte, 0, 512)
		return func() {
			if len(AppendDeliverFrame(buf[:0], Header{Opcode: OpDeliver, Handle: 1}, &d)) != HeaderBytes+d.HeadBytes() {
				tb.Fatal()
			}
		}
	}},
	{"frame=credit/op=parse", func(tb testing.TB) func() {
		b := (&Credit{Bytes: 1 << 20}).Append(nil)
		return func() {
			var x Credit
			if err := x.Parse(b); err != nil || x.Bytes != 1<<20 {
				tb.Fatal(x, err)
			}
		}
	}},
	{"frame=credit/op=append", func(tb testing.TB) func() {
		buf := make([]byte, 0, 64)
		x := Credit{Bytes: 1 << 20}
		return func() {
			b, mark := BeginFrame(buf[:0], Header{Opcode: OpCredit, Handle: 1})
			if len(EndFrame(x.Append(b), mark)) != HeaderBytes+CreditPayloadBytes {
				tb.Fatal()
			}
		}
	}},
	{"frame=any/op=detect", func(tb testing.TB) func() {
		b := AppendPreface(nil, 1, 1)
		return func() {
			if Detect(b) != KindPortask {
				tb.Fatal()
			}
		}
	}},
}

func sampleDelivery() DeliverHead {
	d := DeliverHead{Partition: 3, HWM: 1000, Ranges: []Range{{First: 0, End: 10}, {First: 20, End: 30}}}
	for i := range message.Offset(4) {
		d.Runs = append(d.Runs, Run{Seed: 7, First: 100 * i, End: 100*i + 64, Bytes: 64 << 10, Batches: 1})
	}
	return d
}

func TestHotPathAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, h := range hot {
		do := h.prepare(t)
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Errorf("%s: %v allocations", h.name, n)
		}
	}
}

func BenchmarkFrame(b *testing.B) {
	for _, h := range hot {
		b.Run(h.name, func(b *testing.B) {
			do := h.prepare(b)
			b.ReportAllocs()
			for b.Loop() {
				do()
			}
		})
	}
}
