package disklog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/storage"
)

// TestCrashAtEveryBoundary cuts the power before every call that changes the
// disk, in a script of 500 operations, and opens what is left in three ways:
// nothing unsynced survived, all of it, and a random part. Each time: nothing
// durable is lost, no offset is given twice, what is there is a prefix of what
// was appended, the producers' state is that of the prefix, nothing counts as
// damage; and the log goes on from there.
func TestCrashAtEveryBoundary(t *testing.T) {
	for _, c := range []struct {
		seed uint64
		ops  int
		lazy bool
	}{{1, 500, false}, {2, 150, true}, {3, 150, true}} {
		t.Run(fmt.Sprintf("ops=%d/lazy=%t/seed=%d", c.ops, c.lazy, c.seed), func(t *testing.T) {
			crashScript(t, c.seed, c.ops, c.lazy)
		})
	}
}

func crashScript(t *testing.T, seed uint64, ops int, lazy bool) {
	fs := vfs.NewMem()
	s := newScript(fs, seed)
	s.lazy = lazy
	points, deep := 0, 0
	var failed error
	fs.OnOp(func(op vfs.Op) error {
		if failed != nil {
			return failed
		}
		points++
		for _, mode := range vfs.CrashModes {
			left := fs.Clone(mode, uint64(op.N))
			if err := s.survive(left, 0); err != nil {
				failed = fmt.Errorf("crash before call %d (%v %s), mode %v: %w", op.N, op.Kind, op.Name, mode, err)
				return failed
			}
		}
		// And once in a while crash again at every call of the recovery.
		if op.N%23 == 0 {
			n, err := s.crashRecovery(fs.Clone(vfs.CrashRandom, uint64(op.N)))
			if deep += n; err != nil {
				failed = fmt.Errorf("crash before call %d (%v %s), mode random, then: %w", op.N, op.Kind, op.Name, err)
			}
		}
		return failed
	})
	err := s.open()
	for i := 0; i < ops && err == nil; i++ {
		err = s.step()
	}
	if err == nil {
		err = s.e.Close()
	}
	if errors.Join(failed, err) != nil {
		t.Fatal(errors.Join(failed, err))
	}
	if points < 2*ops || deep < ops/3 {
		t.Errorf("only %d crashes, and %d in recoveries", points, deep)
	}
	t.Logf("%d crashes in 3 modes, %d crashes during recovery", points, deep)
}

// survive opens what a crash left, checks it, goes on, and opens it again.
func (s *script) survive(left *vfs.Mem, depth int) error {
	o := s.o
	e, l, state, err := s.reopen(left)
	if err != nil {
		return err
	}
	defer func() { _ = e.Close() }()
	if err := o.check(l, state); err != nil {
		return err
	}
	if err := s.checkMeta(e); err != nil {
		return err
	}
	// The log goes on; what was lost does not come back.
	end := l.End()
	more := &oracle{rng: rand.New(rand.NewPCG(9, 9)), build: o.build, clock: o.clock + 1}
	for i := range o.batches {
		if w := o.batches[i]; w.end <= end {
			more.batches = append(more.batches, w)
		}
	}
	more.accepted = len(more.batches)
	more.start, more.maybe, more.epoch = l.Start(), l.Start(), l.Epoch()
	if err := more.append(l, 2, 200); err != nil {
		return err
	}
	if err := more.sync(l); err != nil {
		return err
	}
	if depth == 1 {
		return nil
	}
	e2, l2, _, err := s.reopen(left.Clone(vfs.CrashNone, 0))
	if err != nil {
		return fmt.Errorf("second open: %w", err)
	}
	defer func() { _ = e2.Close() }()
	if err := more.check(l2, nil); err != nil {
		return fmt.Errorf("second open: %w", err)
	}
	return nil
}

// crashRecovery opens what a crash left, and cuts the power again at each call
// on the way.
func (s *script) crashRecovery(left *vfs.Mem) (points int, failed error) {
	left.OnOp(func(op vfs.Op) error {
		if failed != nil {
			return failed
		}
		points++
		for _, mode := range vfs.CrashModes {
			if err := s.survive(left.Clone(mode, uint64(op.N)), 1); err != nil {
				failed = fmt.Errorf("crash before call %d of the recovery (%v %s), mode %v: %w", op.N, op.Kind, op.Name, mode, err)
			}
		}
		return failed
	})
	e, _, _, err := s.reopen(left)
	left.OnOp(nil)
	if e != nil {
		_ = e.Close()
	}
	if failed == nil {
		failed = err
	}
	return points, failed
}

func (s *script) reopen(fs vfs.FS) (*Engine, storage.Log, *refold, error) {
	e, err := Open(fs, "data", s.opts)
	if err != nil {
		return nil, nil, nil, err
	}
	state := &refold{}
	l, err := e.OpenLog(testID, s.o.options(state))
	if err != nil {
		return e, nil, nil, errors.Join(err, e.Close())
	}
	return e, l, state, nil
}
