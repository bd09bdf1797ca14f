package client

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestConsumerCreditAcrossReconnects: what a consumer holds beyond its window
// when the connection is lost counts on the next one too, so that a broker that
// keeps to its credit is not taken for one that breaks it.
func TestConsumerCreditAcrossReconnects(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		const batches = 60
		var want strings.Builder
		for i := range batches {
			vs := strings.Repeat("x", 1+i*37%90)
			b.fill("orders", 0, vs)
			want.WriteString(vs)
		}
		c := b.client()
		defer c.Close()
		k := consumer(t, c, From(Earliest), WithCredit(1000))
		var got strings.Builder
		for round := 0; got.Len() < want.Len(); round++ {
			synctest.Wait() // all that the credit allows is here
			if round%3 == 0 {
				b.cut()
				time.Sleep(time.Minute) // virtual: it is connected again
				synctest.Wait()
			}
			p, err := k.Poll(t.Context())
			if err != nil {
				t.Fatalf("after %d messages: %v", got.Len(), err)
			}
			for m, err := range p.Messages() {
				if err != nil {
					t.Fatal(err)
				}
				got.Write(m.Value)
			}
			p.Release()
			b.deliver()
		}
	})
}
