package objectives

import (
	"context"
	"path/filepath"

	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/ci/policy/check"
)

// policy replays the recorded costs of compressing through the adaptive policy
// and its rivals, on the files that were held out from training: a computation, the
// same everywhere, of some seconds.
func (s *session) policy(context.Context) error {
	r, err := check.Recorded(filepath.Join(s.Root, filepath.FromSlash(check.RowsFile)), adaptive.Embedded())
	if err != nil {
		return err
	}
	for _, v := range r.Values() {
		s.count(v.Name, v.Value)
	}
	return nil
}
