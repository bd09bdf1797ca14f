package top

import (
	"fmt"
	"testing"
	"time"
)

func BenchmarkFrame(b *testing.B) {
	for _, c := range []struct{ w, h, topics int }{{80, 24, 10}, {200, 60, 200}} {
		b.Run(fmt.Sprintf("size=%dx%d/topics=%d", c.w, c.h, c.topics), func(b *testing.B) {
			v := view(c.w, c.h, load(c.topics)...)
			b.ReportAllocs()
			for b.Loop() {
				v.Frame()
			}
		})
	}
}

func BenchmarkBetween(b *testing.B) {
	for _, topics := range []int{10, 200} {
		b.Run(fmt.Sprintf("topics=%d", topics), func(b *testing.B) {
			from := busy(topics)
			to := after(from, time.Second, 1e5, 1e5)
			b.ReportAllocs()
			for b.Loop() {
				Between(from, to)
			}
		})
	}
}
