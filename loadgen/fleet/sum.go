package fleet

import (
	"github.com/portask/portask/loadgen/payload"
	"github.com/portask/portask/loadgen/verify"
)

func addCounts(to, from *verify.Counts) {
	to.Sent += from.Sent
	to.Acked += from.Acked
	to.Failed += from.Failed
	to.Delivered += from.Delivered
	to.Lost += from.Lost
	to.Duplicated += from.Duplicated
	to.Reordered += from.Reordered
	to.Corrupt += from.Corrupt
	to.Foreign += from.Foreign
	to.Phantom += from.Phantom
	to.Misplaced += from.Misplaced
	to.UnackedDelivered += from.UnackedDelivered
	to.Unanswered += from.Unanswered
}

// addStats adds what another agent sent. Counts, extremes and the ratio of whole
// batches are exact; the quantiles of sizes between the extremes are the first
// agent's, whose messages are of the same distribution; entropy and the ratio of
// single messages are means over samples.
func addStats(to, from *payload.Stats) {
	if to.Messages == 0 {
		*to = *from
		return
	}
	if from.Messages == 0 {
		return
	}
	to.Messages += from.Messages
	to.Bytes += from.Bytes
	to.MeanBytes = float64(to.Bytes) / float64(to.Messages)
	to.Sizes.Min, to.Sizes.Max = min(to.Sizes.Min, from.Sizes.Min), max(to.Sizes.Max, from.Sizes.Max)
	a, b := float64(to.SampledBytes), float64(from.SampledBytes)
	if a+b > 0 {
		to.Entropy = (a*to.Entropy + b*from.Entropy) / (a + b)
	}
	to.Zstd1, to.Zstd1Single = ratios(a, to.Zstd1, b, from.Zstd1), ratios(a, to.Zstd1Single, b, from.Zstd1Single)
	to.SampledBatches += from.SampledBatches
	to.SampledMessages += from.SampledMessages
	to.SampledBytes += from.SampledBytes
}

// ratios is the ratio of a and b bytes together, of which each has its own.
func ratios(a, ofA, b, ofB float64) float64 {
	if ofA <= 0 || ofB <= 0 {
		return max(ofA, ofB)
	}
	return (a + b) / (a/ofA + b/ofB)
}
