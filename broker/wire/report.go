package wire

import "github.com/portask/portask/broker/message"

// Report tells the broker how a producer compresses, of which the broker knows
// nothing but the results: what a producer that chooses from batch to batch has
// chosen, at what cost, and why. The broker shows it to people. The client sends it
// on the producer's handle, unasked and not answered, once a second at most, to a
// broker that lists the opcode in HELLO_OK; whoever is not interested leaves it out.
//
//	┌─────────────┬──────────┬───────────┬────────┬─────────────┬──────────────────┐
//	│ strategy u8 │ chosen u8│ reason u8 │ cpu u8 │ fan-out u16 │ link u64, B/s    │
//	├─────────────┼──────────┴───┬───────┴────────┴┬────────────┴┬──────────┬──────┴────┬─────────┐
//	│ batches u64 │ switches u64 │ artefact str 64 │ note str 256│ u8 n,    │ u8 m,     │ options │
//	│             │              │                 │             │ n × arm  │ m × switch│         │
//	│             │              │                 │             │ n ≤ 16   │ m ≤ 16    │         │
//	└─────────────┴──────────────┴─────────────────┴─────────────┴──────────┴───────────┴─────────┘
//
//	option 2: what the producer takes advice on from now on, u16, as in OPEN_PRODUCER
type Report struct {
	Strategy uint8 // of package compression
	Chosen   uint8 // index of an arm, NoArm before the first batch
	Reason   uint8 // of package compression/adaptive
	// What the last decision went by: processors in use, percent, 255 = not known;
	// copies of each byte that are sent; what the producer takes its link for, 0 =
	// not known.
	CPU    uint8
	FanOut uint16
	Link   uint64

	Batches  uint64 // decided on since the producer was opened
	Switches uint64 // of them, those that chose another arm than the one before
	Artefact string // names what the prior was trained to
	Note     string // for people: why the artefact is not the configured one
	Arms     []ReportArm
	Recent   []ReportSwitch // the last ones, oldest first

	HasWants bool
	Wants    AdviceWants
}

// ReportArm is a way to compress: counters since the producer was opened, and what
// a batch like the last one would cost.
//
//	┌─────────────┬──────────┬─────────────┬────────┬─────────┬───────────────┬───────────────┬──────────────────┬─────────────────┐
//	│ algorithm u8│ level u8 │ batches u64 │ in u64 │ out u64 │ discarded u64 │ encode ns u64 │ predicted ns u64 │ observed ns u64 │
//	└─────────────┴──────────┴─────────────┴────────┴─────────┴───────────────┴───────────────┴──────────────────┴─────────────────┘
type ReportArm struct {
	Algorithm message.Algorithm
	Level     uint8
	Batches   uint64 // sent this way
	In, Out   uint64 // bytes of their bodies before and after
	Discarded uint64 // of Batches, those whose output saved too little and that were sent as they were
	EncodeNs  uint64 // spent on all of them
	// Predicted is what the policy expects a batch like the last one to cost in all
	// (time on processors at their price, link, storage, decoding), in nanoseconds;
	// Observed what the last batch of this arm is found to have cost. 0 = unknown.
	Predicted, Observed uint64
}

// ReportSwitch is a change of the choice.
//
//	┌────────────┬─────────┬───────┬───────────┐
//	│ at µs i64  │ from u8 │ to u8 │ reason u8 │
//	└────────────┴─────────┴───────┴───────────┘
type ReportSwitch struct {
	AtUs             int64 // the producer's clock
	From, To, Reason uint8 // From and To are indexes of arms
}

// NoArm is the index of no arm.
const NoArm = 255

const (
	optReportWants    = 2
	reportArmBytes    = 2 + 7*8
	reportSwitchBytes = 8 + 3
)

// Append implements Payload.
func (x *Report) Append(dst []byte) []byte {
	dst = append(dst, x.Strategy, x.Chosen, x.Reason, x.CPU)
	dst = le.AppendUint16(dst, x.FanOut)
	dst = le.AppendUint64(dst, x.Link)
	dst = le.AppendUint64(dst, x.Batches)
	dst = le.AppendUint64(dst, x.Switches)
	dst = appendText(dst, x.Artefact, MaxArtefactBytes)
	dst = appendText(dst, x.Note, MaxNoteBytes)
	arms := x.Arms[:min(len(x.Arms), MaxArms)]
	dst = append(dst, uint8(len(arms)))
	for i := range arms {
		a := &arms[i]
		dst = append(dst, uint8(a.Algorithm), a.Level)
		for _, v := range [...]uint64{a.Batches, a.In, a.Out, a.Discarded, a.EncodeNs, a.Predicted, a.Observed} {
			dst = le.AppendUint64(dst, v)
		}
	}
	recent := x.Recent[max(0, len(x.Recent)-MaxSwitches):]
	dst = append(dst, uint8(len(recent)))
	for i := range recent {
		s := &recent[i]
		dst = append(le.AppendUint64(dst, uint64(s.AtUs)), s.From, s.To, s.Reason)
	}
	if !x.HasWants {
		return appendOptions(dst, nil)
	}
	return appendOptions(dst, AppendOption(nil, optReportWants, le.AppendUint16(nil, uint16(x.Wants))))
}

// Parse implements Payload. Numbers of a later version are not refused: they name
// nothing here.
func (x *Report) Parse(src []byte) error {
	c := cursor{name: "REPORT", b: src}
	x.Strategy, x.Chosen, x.Reason, x.CPU = c.u8("strategy"), c.u8("chosen"), c.u8("reason"), c.u8("cpu")
	x.FanOut = c.u16("fan_out")
	x.Link = c.u64("link")
	x.Batches, x.Switches = c.u64("batches"), c.u64("switches")
	x.Artefact = c.str("artefact", MaxArtefactBytes)
	x.Note = c.str("note", MaxNoteBytes)
	x.Arms = x.Arms[:0]
	for range c.count("arms", uint32(c.u8("arms")), MaxArms, reportArmBytes) {
		a := ReportArm{Algorithm: message.Algorithm(c.u8("algorithm")), Level: c.u8("level")}
		for _, p := range [...]*uint64{&a.Batches, &a.In, &a.Out, &a.Discarded, &a.EncodeNs, &a.Predicted, &a.Observed} {
			*p = c.u64("arm")
		}
		x.Arms = append(x.Arms, a)
	}
	x.Recent = x.Recent[:0]
	for range c.count("switches", uint32(c.u8("switches")), MaxSwitches, reportSwitchBytes) {
		x.Recent = append(x.Recent, ReportSwitch{AtUs: c.i64("at_us"), From: c.u8("from"), To: c.u8("to"), Reason: c.u8("reason")})
	}
	x.HasWants, x.Wants = false, 0
	if v, ok := c.options(1 << optReportWants).Lookup(optReportWants); ok && c.sized("wants", v, 2) {
		x.HasWants, x.Wants = true, AdviceWants(le.Uint16(v))
	}
	return c.end()
}
