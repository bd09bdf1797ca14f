// Package message defines what Portask moves: the message an application
// sends, the batch that carries it, and the batch's bytes, which are the same
// on the wire, in the log and in a delivery (FORMAT.md).
//
// A producer collects messages in a [Builder] and sends the batch it finishes.
// The broker reads only the 80-byte [Envelope] and the optional [Section]: it
// checks both and the checksums ([ParseEnvelope], [VerifyHeader],
// [VerifyBody]), writes offset, time and epoch into the envelope ([Stamp]) and
// stores the rest as it came. A consumer decompresses the body that [Split]
// returns and walks through it with a [Reader].
//
// Functions are safe for concurrent use on different bytes. A Builder and a
// Reader belong to one goroutine at a time.
//
// Compression itself, the choice of it, and encodings of values are left to
// others: the algorithm and the encoding are only named here.
package message
