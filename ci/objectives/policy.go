package objectives

import (
	"context"
	"path/filepath"

	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/ci/internal/slo"
	"github.com/portask/portask/ci/policy/check"
)

// policy replays the recorded costs of compressing through the adaptive policy
// and its rivals, on the files that were held out from training: a computation, the
// same everywhere, of some seconds. It is what `perflab policy check` does, and
// prints what that prints, so that a gate needs no stage of its own for it.
func (s *session) policy(context.Context) error {
	r, err := check.Recorded(filepath.Join(s.Root, filepath.FromSlash(check.RowsFile)), adaptive.Embedded())
	if err != nil {
		return err
	}
	s.printf("perflab policy check:")
	r.Print(s.Out)
	for _, v := range r.Values() {
		s.count(v.Name, v.Value)
		if o, ok := s.File.Find(v.Name); ok {
			s.printf("%s", slo.Line(s.File.Judge(o, s.Samples[v.Name], true)))
		}
	}
	return nil
}
