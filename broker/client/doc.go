// Package client is the Go client of a Portask broker: a Producer, a Consumer
// and an Admin over one multiplexed TCP connection.
//
// A Client comes from Dial. It keeps its connections alive with heartbeats and
// comes back after a loss with exponential back-off; producers then open again
// with the same identity and send again what was not answered, consumers
// subscribe again where they were. An application sees a loss as delay, or as
// an error once its context or the delivery timeout ends.
//
// Every error is or wraps a *fault.Error, so errors.Is(err, fault.NotFound) and
// fault.Retryable(err) work; one caused by a context wraps the context's error
// too.
//
// # Values
//
// Producer.Encode makes a Go value the value of a message, as CBOR, JSON or
// MessagePack; Consumer.Decode reads whatever arrives, since each batch names
// the encoding. Bytes of the application's own go unchanged.
//
// # Goroutines
//
// Two per connection (a reader that also reconnects, a writer), two per
// Producer (a sender, one for callbacks), none per Consumer. Close of a Client
// ends them all before it returns.
//
// # Memory
//
// A connection holds 32 KiB to read into. A Producer holds at most
// WithMaxBuffered bytes of messages, one batch being filled per partition and
// as much again while batches are encoded. A Consumer holds at most WithCredit
// bytes per partition and one frame more. Nothing is dropped when a bound is
// reached: Send waits, and the broker stops to deliver.
package client
