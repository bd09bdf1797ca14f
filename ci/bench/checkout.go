package bench

import (
	"context"

	"github.com/portask/portask/ci/verdict"
)

// Checkout writes the files of a revision of the repository at dir, or of its
// WorkingTree, into the directory to, which must not exist. Neither the
// repository's index nor its list of work trees knows of it.
func Checkout(ctx context.Context, dir, revision, to string) (verdict.Revision, error) {
	r, err := openRepository(ctx, dir)
	if err != nil {
		return verdict.Revision{}, err
	}
	rev, err := r.resolve(ctx, revision, nil)
	if err != nil {
		return rev, err
	}
	return rev, r.checkout(ctx, rev, to)
}
