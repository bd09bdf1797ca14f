package adaptive

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"hash/fnv"
	"io"
	"sync"

	"github.com/portask/portask/broker/fault"
)

// ArtefactMaxBytes is the longest artefact that Parse reads.
const ArtefactMaxBytes = 64 << 10

// Format and FormatVersion are what this package reads.
const (
	Format        = "portask-adaptive-policy"
	FormatVersion = 1
)

// Sizes are the body lengths, in bytes, at which profiles know costs; between
// them they are interpolated over the logarithm of the length.
var Sizes = [...]int{1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10}

// Limits of an artefact's parts.
const (
	profilesMax = 64
	stringMax   = 200
	listMax     = 512
	costMost    = 2400 // hundredths of a binary logarithm
)

// Artefact is what training found out: immutable after Parse, shared by any
// number of deciders. Its form is JSON of at most ArtefactMaxBytes. Costs and
// sizes in it are binary logarithms in hundredths, rounded: 100 is a factor of 2.
type Artefact struct {
	Format     string     `json:"format"`
	Version    int        `json:"version"`
	Provenance Provenance `json:"provenance"`
	// Reference is what the training machine needed for the bodies of Calibrate,
	// in nanoseconds, in the order of calibrated.
	Reference [len(calibrated)]float64 `json:"reference_ns"`
	Model     Model                    `json:"model"`
	Arms      []string                 `json:"arms"`  // in the order of the numbers; no other is read
	Sizes     []int                    `json:"sizes"` // as Sizes
	Profiles  []Profile                `json:"profiles"`

	hash  uint64
	model model
}

// Provenance says where an artefact comes from. It has no effect.
type Provenance struct {
	Commit    string   `json:"commit"`
	Go        string   `json:"go"`
	CPU       string   `json:"cpu"`
	Libraries []string `json:"libraries"` // module@version
	Rows      string   `json:"rows"`      // SHA-256 of the training rows
	Corpus    []string `json:"corpus"`    // class and hash of each file trained on
}

// Model holds the constants of the regression, fitted on training rows only.
type Model struct {
	// The widths of the kernel: how far, in binary logarithms, what was observed
	// may be from a profile that is still to count with e^(-1/2).
	OutWidth  float64 `json:"out_width"`
	TimeWidth float64 `json:"time_width"`
	SignWidth float64 `json:"sign_width"` // per axis of features
	// Trust is the number of observations at which an arm's own average counts as
	// much as the profiles.
	Trust float64 `json:"trust"`
	// Shared is the part of the deviation of tried arms that untried ones are
	// expected to have too.
	Shared float64 `json:"shared"`
}

// A Profile is what one kind of body costs.
type Profile struct {
	Class  string  `json:"class"`
	Weight float64 `json:"weight"` // before anything is observed; relative
	// Signs are the mean features at each size, in hundredths.
	Signs [][]int `json:"signs"`
	// Costs[size][arm-1] are bytes of output for a byte of input, nanoseconds of
	// encoding and of decoding for a byte of input; Raw is not among them.
	Costs [][][]int `json:"costs"`
}

//go:embed artefact.json
var embedded []byte

// Embedded returns the artefact that this package carries.
var Embedded = sync.OnceValue(func() *Artefact {
	a, err := Parse(embedded)
	if err != nil {
		panic("adaptive: the embedded artefact is not valid: " + err.Error()) // a test holds this
	}
	return a
})

// Load returns the artefact in b, or the embedded one and the reason why b was
// refused.
func Load(b []byte) (*Artefact, error) {
	a, err := Parse(b)
	if err != nil {
		return Embedded(), err
	}
	return a, nil
}

func refuse(c fault.Code, field string) *fault.Error {
	return fault.New(c, "parse adaptive policy").WithField(field).WithCategory(fault.CategoryCompression)
}

// Parse reads an artefact and checks all of it.
//
// Errors, each naming the field: fault.TooLarge for more than ArtefactMaxBytes;
// fault.Corrupted for what is not JSON of this shape; fault.Invalid for another
// format, other arms or sizes, and a number that is not finite or out of its
// range; fault.VersionUnsupported for another version.
func Parse(b []byte) (*Artefact, error) {
	if len(b) > ArtefactMaxBytes {
		return nil, refuse(fault.TooLarge, "artefact").WithLimit(int64(len(b)), ArtefactMaxBytes)
	}
	// What it says it is comes first: a foreign file is called foreign, not damaged.
	var head struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, refuse(fault.Corrupted, "artefact").WithCause(err)
	}
	if head.Format != Format {
		return nil, refuse(fault.Invalid, "format").WithDetail("%.40q is not %s", head.Format, Format)
	}
	if head.Version != FormatVersion {
		return nil, refuse(fault.VersionUnsupported, "version").WithLimit(int64(head.Version), FormatVersion)
	}
	a := new(Artefact)
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(a); err != nil {
		return nil, refuse(fault.Corrupted, "artefact").WithCause(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, refuse(fault.Corrupted, "artefact").WithDetail("bytes follow it")
	}
	if err := a.check(); err != nil {
		return nil, err
	}
	h := fnv.New64a()
	_, _ = h.Write(b) // never fails
	a.hash = h.Sum64()
	a.model.build(a)
	return a, nil
}

// Hash tells artefacts apart, in event logs; it is no protection.
func (a *Artefact) Hash() uint64 { return a.hash }

func (a *Artefact) check() error {
	within := func(field string, v, low, high float64) error {
		if !(v >= low && v <= high) {
			return refuse(fault.Invalid, field).WithDetail("%v is not in [%v, %v]", v, low, high)
		}
		return nil
	}
	length := func(field string, n, want int) error {
		if n != want {
			return refuse(fault.Invalid, field).WithDetail("%d entries, not %d", n, want)
		}
		return nil
	}
	errs := []error{
		within("model.out_width", a.Model.OutWidth, 0.01, 10),
		within("model.time_width", a.Model.TimeWidth, 0.01, 10),
		within("model.sign_width", a.Model.SignWidth, 0.01, 10),
		within("model.trust", a.Model.Trust, 0.01, 100),
		within("model.shared", a.Model.Shared, 0, 1),
		length("arms", len(a.Arms), Arms),
		length("sizes", len(a.Sizes), len(Sizes)),
		within("profiles", float64(len(a.Profiles)), 1, profilesMax),
		within("provenance", float64(len(a.Provenance.Corpus)+len(a.Provenance.Libraries)), 0, listMax),
	}
	for _, ns := range a.Reference {
		errs = append(errs, within("reference_ns", ns, 1, 1e12))
	}
	if err := first(errs); err != nil {
		return err
	}
	for i, name := range a.Arms {
		if name != Arm(i).String() {
			return refuse(fault.Invalid, "arms").WithDetail("arm %d is %.40q, not %s", i, name, Arm(i))
		}
	}
	for i, n := range a.Sizes {
		if n != Sizes[i] {
			return refuse(fault.Invalid, "sizes").WithLimit(int64(n), int64(Sizes[i]))
		}
	}
	for i := range a.Profiles {
		p := &a.Profiles[i]
		errs = append(errs[:0], within("profiles.weight", p.Weight, 1e-6, 1e6), length("profiles.signs", len(p.Signs), len(Sizes)),
			length("profiles.costs", len(p.Costs), len(Sizes)), within("profiles.class", float64(len(p.Class)), 0, stringMax))
		for _, s := range p.Signs {
			errs = append(errs, length("profiles.signs", len(s), Axes))
			for _, v := range s {
				errs = append(errs, within("profiles.signs", float64(v), -1000, 1000))
			}
		}
		for _, s := range p.Costs {
			errs = append(errs, length("profiles.costs", len(s), Arms-1))
			for _, arm := range s {
				errs = append(errs, length("profiles.costs", len(arm), 3))
				for _, v := range arm {
					errs = append(errs, within("profiles.costs", float64(v), -costMost, costMost))
				}
			}
		}
		if err := first(errs); err != nil {
			return err
		}
	}
	return nil
}

func first(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
