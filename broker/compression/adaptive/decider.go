package adaptive

import "github.com/portask/portask/broker/message"

// Options are those of New. The zero value is valid.
type Options struct {
	// Topic and Producer name what is decided for, in explanations and logs. They
	// do not change decisions.
	Topic, Producer string
	// HostScale is how much longer this machine takes for what the artefact's
	// machine took, as Calibrate measures it; 0 is 1. Held between 1/16 and 16.
	HostScale float64
	// Arms, unless 0, are those that may be used: bit a stands for arm a. Raw always
	// may. See ArmsFor.
	Arms ArmSet
	// MinSaving is the least part of a body to be saved for its output to be kept,
	// in [0, 1); anything else is 0.02: less does not repay the readers' decoding.
	MinSaving float64
}

// An ArmSet is a set of arms, one bit each.
type ArmSet uint16

// AllArms holds all of them.
const AllArms ArmSet = 1<<Arms - 1

// Has reports whether a is in s.
func (s ArmSet) Has(a Arm) bool { return s>>a&1 != 0 }

// ArmsFor returns the arms whose algorithms accept says true for; Raw always.
func ArmsFor(accept func(message.Algorithm) bool) ArmSet {
	s := ArmSet(1 << Raw)
	for a := range Arm(Arms) {
		if accept(a.Algorithm()) {
			s |= 1 << a
		}
	}
	return s
}

// Reason says why an arm was chosen.
type Reason uint8

// The reasons.
const (
	Cheapest     Reason = iota // its predicted cost is the least
	Held                       // another is cheaper, by less than a switch is worth
	Probe                      // what it costs is worth knowing
	RawGuard                   // a cheaper arm might take the account against raw over its bound
	LatencyBound               // a cheaper arm would take longer than the latency budget
	MemoryBound                // a cheaper arm needs memory that is short
	QueueBound                 // batches wait, and a cheaper arm is slower than the link
	Small                      // too small a body to be compressed
	Excluded                   // a cheaper arm may not be used (Options.Arms)
	reasons
)

var reasonNames = [reasons]string{
	"cheapest", "held", "probe", "raw-guard", "latency-bound", "memory-bound", "queue-bound", "small", "excluded",
}

// String returns the reason's name.
func (r Reason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return "invalid"
}

// SmallBytes is the size below which bodies stay raw: the least that any arm
// saved on bodies so short does not repay a call.
const SmallBytes = 128

// A Token ties an observation to its decision. It is a value, valid for the
// Decider that gave it, for ever.
type Token struct {
	regime uint32  // that of the decision: what was seen before a change says nothing after it
	arm    Arm     //
	class  uint8   // of the size
	out    float64 // bytes and nanoseconds that the decision expected
	encode float64
	weight float64 // cost of a byte of output, at the conditions of the decision
	price  float64 // of CPU, likewise
}

// Arm is the arm that was decided.
func (t Token) Arm() Arm { return t.arm }

// A Decision is how one body is to be encoded.
type Decision struct {
	Arm Arm
	// Reason says why.
	Reason Reason
	// KeepMost is the longest output worth keeping, in bytes; a longer one is to be
	// dropped and the body sent raw. 0 for Raw.
	KeepMost int
	// Measure asks for the time of encoding in Observe. Without it a time is
	// welcome but not worth reading a clock for.
	Measure bool
	// Token is to be given to Observe. For Raw, Observe need not be called.
	Token Token
}

// estimate is what was observed of an arm in this regime: averages of binary
// logarithms, as deviations from the model's mean at the size.
type estimate struct {
	out, encode, decode    float64
	nOut, nEncode, nDecode uint32
	variance               float64 // of out, between batches
	deviation              float64 // its root, as of some batches ago, and at least deviationLeast
}

// plan is what is known for one class of sizes: valid while its keys are.
type plan struct {
	class      uint8
	made       bool
	regime     uint32
	knowledge  uint32 // that it was made from
	conditions uint32
	best       Arm // with constraints and hysteresis
	second     Arm // the cheapest of the others
	reason     Reason
	probe      Arm     // the arm most worth trying; Raw: none
	gain       float64 // expected of knowing it, for each byte sent hereafter
	loss       float64 // expected of trying it, for each byte of the trial
	perByte    costs   // out, encode, decode as expected
	cost       [Arms]float64
	exclude    [Arms]Reason // why not; Cheapest: allowed
}

// Sizes of what a Decider keeps.
const (
	plans   = 4 // sizes in use at a time, without computing anew
	changes = 16
)

// Decider decides for one topic of one producer. It holds about 8 KiB. It is not
// safe for concurrent use.
type Decider struct {
	a     *Artefact
	o     Options
	scale float64 // HostScale's binary logarithm

	conditions  Conditions // sanitised
	price       float64    // of a nanosecond of CPU
	weight      float64    // of a byte of output, in nanoseconds
	conditioned uint32     // counts changes of the conditions
	dictionary  bool

	regime    uint32 // counts changes of the bodies
	knowledge uint32 // counts changes of what is below
	arms      [Arms]estimate
	signs     [Axes]float64 // mean of the features of this regime
	nSigns    uint32
	noise     float64 // square of the distance of features from their mean, usually
	in        detector
	kernel    kernel
	plan      [plans]plan

	past          [regimesMost]regime // that ended
	recalled      int                 // place in past that this regime began with; -1: none
	high          float64             // mean of what glances counted
	nGlances      uint64              // of this regime
	batches       uint64              // decided
	inRegime      uint64              // of this regime
	granted       uint64              // batch from which a new regime gets its budgets in advance
	nextSigns     uint64              // batch of the regime that features are wanted of
	credit        float64
	learning      float64 // credit for features and regression
	trying        float64 // credit for probes
	spent, rawly  float64 // cost decided on; cost had all been raw
	current       Arm
	counts        Counts
	used, skipped [Arms]uint64
	history       [changes]Change
	historyLength uint64

	rec    *Recorder
	stream uint32
}

// New returns a Decider that knows nothing yet but a.
func New(a *Artefact, o Options) *Decider {
	if !(o.MinSaving >= 0 && o.MinSaving < 1) || o.MinSaving == 0 {
		o.MinSaving = 0.02
	}
	if !(o.HostScale >= 1.0/16 && o.HostScale <= 16) {
		o.HostScale = 1
	}
	if o.Arms &= AllArms; o.Arms == 0 {
		o.Arms = AllArms
	}
	o.Arms |= 1 << Raw
	d := &Decider{a: a, o: o, scale: log2(o.HostScale), recalled: -1}
	d.SetConditions(Conditions{})
	return d
}
