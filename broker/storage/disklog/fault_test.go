package disklog

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/storage"
)

// failure kinds of one call: the error, how much of a write happens before it,
// and whether a failed sync also loses what it was to write.
var faultKinds = []struct {
	name string
	d    vfs.Decision
	half bool
}{
	{"EIO", vfs.Decision{Err: syscall.EIO}, false},
	{"EIO, lost", vfs.Decision{Err: syscall.EIO, Lose: true}, false},
	{"short, EIO", vfs.Decision{Err: syscall.EIO}, true},
	{"ENOSPC", vfs.Decision{Err: syscall.ENOSPC}, false},
	{"short, ENOSPC", vfs.Decision{Err: syscall.ENOSPC}, true},
}

// TestFaultAtEveryCall fails every single call to the file system in a script
// once, in five ways. Whatever is answered must hold, then and after a power
// cut: no ack for what is not stored, nothing acknowledged is lost, a full disk
// leaves the log usable with nothing of the refused batches in it, any other
// error fences it until it is opened again, and reads go on.
func TestFaultAtEveryCall(t *testing.T) {
	calls := int64(0)
	for k := range faultKinds {
		n := int64(1)
		for ; ; n++ {
			hit, err := faultyRun(k, n)
			if err != nil {
				t.Fatalf("%s at call %d: %v", faultKinds[k].name, n, err)
			}
			if !hit {
				break
			}
		}
		calls = n - 1
	}
	if calls < 250 {
		t.Errorf("the script makes only %d calls", calls)
	}
	t.Logf("%d calls, %d kinds of failure", calls, len(faultKinds))
}

// faultyRun runs the script with the n-th call failing.
func faultyRun(kind int, n int64) (hit bool, err error) {
	mem := vfs.NewMem()
	var at vfs.Op
	s := &faulty{mem: mem}
	f := vfs.NewFault(mem, func(op vfs.Op) vfs.Decision {
		if op.N != n {
			return vfs.Decision{}
		}
		hit, at = true, op
		d := faultKinds[kind].d
		if faultKinds[kind].half {
			d.Short = op.Len / 2
			s.o.half = filepath.Base(op.Name) == durableName
		}
		return d
	})
	s.script = newScript(f, 4)
	if err := s.run(); err != nil {
		return hit, fmt.Errorf("%v %s at %d: %w", at.Kind, at.Name, at.Off, err)
	}
	return hit, nil
}

// faulty is the script, which goes on after errors.
type faulty struct {
	*script
	mem *vfs.Mem
}

func (s *faulty) run() error {
	if err := s.start(); err != nil {
		return err
	}
	steps := []func() error{
		func() error { return s.append(1, 200) },
		s.sync,
		func() error { return s.append(3, 900) },
		func() error { return s.append(4, 900) }, // fills the first, plain segment
		s.sync,
		s.store,
		func() error { return s.append(4, 1500) },
		func() error { return s.append(4, 1500) }, // rolls to a spare
		s.sync,
		func() error { return s.append(4, 1500) },
		func() error { return s.append(4, 1500) },
		s.retain,
		s.sync,
		func() error { return s.append(4, 1500) },
		s.restart,
		s.read,
		func() error { return s.append(2, 900) },
		s.store,
		s.sync,
		s.reopenLog,
		s.read,
		s.retain,
		func() error { return s.append(1, 50) },
		s.reopenLog,
	}
	for i, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	// A power cut at the end finds everything that was acknowledged.
	for _, mode := range []vfs.CrashMode{vfs.CrashNone, vfs.CrashRandom} {
		if err := s.survive(s.mem.Clone(mode, 3), 0); err != nil {
			return fmt.Errorf("power cut, %v: %w", mode, err)
		}
	}
	if err := s.e.Close(); err != nil && fault.Find(err) == nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// start opens engine and log; one of the calls may fail, the next attempt must
// not.
func (s *faulty) start() error {
	o := s.o
	for try := 0; ; try++ {
		err := func() error {
			var err error
			if s.e, err = Open(s.fs, "data", s.opts); err != nil {
				return err
			}
			return s.attach()
		}()
		if err == nil {
			o.durable = s.l.Durable()
			return nil
		}
		if s.e != nil {
			_ = s.e.Close()
		}
		if try > 0 {
			return fmt.Errorf("second start: %w", err)
		}
		if err := coded(err); err != nil {
			return err
		}
	}
}

// attach opens the log and compares it with what it must hold.
func (s *faulty) attach() error {
	o := s.o
	state := &refold{}
	l, err := s.e.OpenLog(testID, o.options(state))
	if err != nil {
		return err
	}
	s.l = l
	err = o.check(l, state)
	if errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENOSPC) {
		err = o.check(l, state) // a read was hit
	}
	if err != nil {
		// Not to be taken for the injected error.
		return fmt.Errorf("log as opened: %v", err) //nolint:errorlint
	}
	for o.accepted = 0; o.accepted < len(o.batches) && o.batches[o.accepted].end <= l.End(); {
		o.accepted++
	}
	o.batches = o.batches[:o.accepted]
	o.start, o.maybe, o.epoch = l.Start(), l.Start(), l.Epoch()
	return nil
}

// coded wants an error to have a code.
func coded(err error) error {
	switch c := fault.CodeOf(err); c {
	case fault.StorageFailed, fault.StorageFull:
		return nil
	default:
		return fmt.Errorf("error of code %v: %w", c, err)
	}
}

// after deals with the outcome of a call that may fence the log.
func (s *faulty) after(op string, err error) error {
	if err == nil {
		return nil
	}
	if err := coded(err); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if !s.l.Stats().Failed {
		return nil
	}
	// Fenced: nothing is taken any more, what was durable can be read.
	if err := s.l.Append(s.o.make(1, 10, 1)); fault.CodeOf(err) != fault.StorageFailed {
		return fmt.Errorf("append to a failed log: %v", err)
	}
	if _, err := s.l.Sync(); fault.CodeOf(err) != fault.StorageFailed {
		return fmt.Errorf("sync of a failed log: %v", err)
	}
	if _, _, err := readAll(s.l); err != nil {
		return fmt.Errorf("read of a failed log: %w", err)
	}
	if err := s.l.Close(); fault.CodeOf(err) != fault.StorageFailed {
		return fmt.Errorf("close of a failed log: %v", err)
	}
	if err := s.attach(); err != nil {
		return fmt.Errorf("open after failure: %w", err)
	}
	s.o.durable = s.l.Durable()
	return nil
}

func (s *faulty) append(n, valueBytes int) error {
	o := s.o
	err := o.append(s.l, n, valueBytes)
	if fault.CodeOf(err) == fault.StorageFull {
		// Nothing of it is stored, and the log goes on.
		if s.l.Stats().Failed {
			return errors.New("a full disk failed the log")
		}
		o.batches = o.batches[:o.accepted]
		if s.l.End() != o.end() {
			return fmt.Errorf("refused batches moved the end to %d", s.l.End())
		}
		for _, mode := range vfs.CrashModes {
			if err := s.survive(s.mem.Clone(mode, 1), 0); err != nil {
				return fmt.Errorf("power cut after a full disk, %v: %w", mode, err)
			}
		}
		return o.append(s.l, n, valueBytes)
	}
	if err != nil {
		err = s.afterFailedAppend(err, o.batches)
	}
	return err
}

// afterFailedAppend opens the log again; some of the batches may be in it.
func (s *faulty) afterFailedAppend(err error, made []written) error {
	if !s.l.Stats().Failed {
		return fmt.Errorf("append failed and the log did not: %w", err)
	}
	if err := coded(err); err != nil {
		return err
	}
	if err := s.l.Append(s.o.at(s.l.End(), 1)); fault.CodeOf(err) != fault.StorageFailed {
		return fmt.Errorf("append to a failed log: %v", err)
	}
	if err := s.l.Close(); fault.CodeOf(err) != fault.StorageFailed {
		return fmt.Errorf("close of a failed log: %v", err)
	}
	s.o.batches = made
	if err := s.attach(); err != nil {
		return fmt.Errorf("open after failure: %w", err)
	}
	s.o.durable = s.l.Durable()
	return nil
}

func (s *faulty) sync() error { return s.after("sync", s.o.sync(s.l)) }

func (s *faulty) retain() error {
	o := s.o
	o.maybe = o.end()
	_, err := s.l.Retain(storage.Retention{MaxBytes: 1}, o.clock, o.end())
	if err == nil {
		o.start, o.durable = s.l.Start(), max(o.durable, s.l.Durable())
	}
	return s.after("retain", err)
}

func (s *faulty) store() error {
	s.next = s.o.value(500)
	err := s.e.StoreMeta("catalogue", s.next)
	if err == nil {
		s.meta, s.next = s.next, nil
		return nil
	}
	if err := coded(err); err != nil {
		return err
	}
	return s.checkMeta(s.e)
}

func (s *faulty) read() error {
	got, _, err := readAll(s.l)
	if errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENOSPC) {
		got, _, err = readAll(s.l) // the failed read changed nothing
	}
	if err != nil {
		return err
	}
	if _, err := s.l.OffsetForTime(s.o.clock); err != nil {
		if err := coded(err); err != nil {
			return err
		}
	}
	return s.o.prefix(got, s.l.Start(), s.l.End())
}

// reopenLog closes the log and opens it again, twice if need be.
func (s *faulty) reopenLog() error {
	err := s.l.Close()
	if err == nil {
		s.o.durable = s.o.end()
	} else if err := coded(err); err != nil {
		return err
	}
	err = s.attach()
	if err != nil {
		if err := coded(err); err != nil {
			return err
		}
		err = s.attach()
	}
	if err == nil {
		s.o.durable = s.l.Durable()
	}
	return err
}

// restart closes the engine and opens it again.
func (s *faulty) restart() error {
	if err := s.e.Close(); err != nil {
		if err := coded(err); err != nil && !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOSPC) {
			return err
		}
	} else {
		s.o.durable = s.o.end()
	}
	return s.start()
}

// TestFullDisk runs the script on disks of many sizes. When it is full, appends
// are refused and everything else goes on, and there is room again after
// retention.
func TestFullDisk(t *testing.T) {
	for pages := int64(8); pages < 60; pages++ {
		fs := vfs.NewMem()
		fs.SetCapacity(pages << 12)
		opts := fixed(small())
		opts.ReserveBytes = 8 << 10
		e, err := Open(fs, "data", opts)
		if err != nil {
			if fault.CodeOf(err) != fault.StorageFull {
				t.Fatalf("%d pages: %v", pages, err)
			}
			continue
		}
		o := newOracle(uint64(pages))
		l, err := e.OpenLog(testID, o.options(nil))
		if err != nil {
			if fault.CodeOf(err) != fault.StorageFull {
				t.Fatalf("%d pages: %v", pages, err)
			}
			check(t, e.Close())
			continue
		}
		refused, stored := 0, 0
		for i := range 80 {
			switch err := o.append(l, 1+i%3, 900); {
			case err == nil:
			case fault.CodeOf(err) != fault.StorageFull:
				t.Fatalf("%d pages: append %d: %v", pages, i, err)
			default:
				refused++
				o.batches = o.batches[:o.accepted]
			}
			if i%4 == 0 {
				check(t, o.sync(l))
			}
			if e.StoreMeta("catalogue", o.value(100)) == nil {
				stored++
			}
			if i == 50 {
				_, err := l.Retain(storage.Retention{MaxBytes: 1}, o.clock, o.end())
				if fault.CodeOf(err) != fault.StorageFull || l.Stats().Segments > 2 {
					check(t, err)
				}
				o.start, o.maybe = l.Start(), l.Start()
			}
		}
		if stored == 0 {
			t.Errorf("%d pages: no metadata could be stored", pages)
		}
		if refused == 0 && pages < 20 {
			t.Errorf("%d pages were enough", pages)
		}
		got, gaps, err := readAll(l)
		if err != nil || len(gaps) > 0 {
			t.Fatal(err, gaps)
		}
		check(t, o.prefix(got, l.Start(), l.End()))
		check(t, e.Close())

		e, err = Open(fs, "data", opts)
		check(t, err)
		o.epoch = l.Epoch()
		l, err = e.OpenLog(testID, o.options(nil))
		if err == nil {
			check(t, o.check(l, nil))
		} else if fault.CodeOf(err) != fault.StorageFull {
			t.Fatal(err)
		}
		check(t, e.Close())
	}
}

// TestFailedSyncFences loses data with a sync that fails once: the next sync of
// the file would succeed, and prove nothing. The log asks for none; opened
// again it writes what can still be read once more before it calls it durable.
func TestFailedSyncFences(t *testing.T) {
	mem := vfs.NewMem()
	armed := false
	fs := vfs.NewFault(mem, func(op vfs.Op) vfs.Decision {
		if armed && op.Kind == vfs.OpSync {
			armed = false
			return vfs.Decision{Err: syscall.EIO, Lose: true}
		}
		return vfs.Decision{}
	})
	e, err := Open(fs, "data", fixed(small()))
	check(t, err)
	o := newOracle(8)
	l, err := e.OpenLog(testID, o.options(nil))
	check(t, err)
	check(t, o.append(l, 3, 300))
	check(t, o.sync(l))
	check(t, o.append(l, 3, 300))
	armed = true
	if _, err := l.Sync(); fault.CodeOf(err) != fault.StorageFailed || !errors.Is(err, syscall.EIO) {
		t.Fatalf("sync: %v", err)
	}
	for range 2 {
		if _, err := l.Sync(); fault.CodeOf(err) != fault.StorageFailed {
			t.Fatalf("sync after a failed one: %v", err)
		}
	}
	if l.Durable() != o.durable {
		t.Fatalf("durable to %d after a failed sync, was %d", l.Durable(), o.durable)
	}
	if err := l.Close(); fault.CodeOf(err) != fault.StorageFailed {
		t.Fatalf("close of a fenced log: %v", err)
	}
	l, err = e.OpenLog(testID, o.options(nil))
	check(t, err)
	if l.Durable() != o.end() {
		t.Fatalf("durable to %d of %d after the next open", l.Durable(), o.end())
	}
	o.durable, o.epoch = l.Durable(), l.Epoch()
	left := mem.Clone(vfs.CrashNone, 0)
	e2, err := Open(left, "data", fixed(small()))
	check(t, err)
	l2, err := e2.OpenLog(testID, o.options(nil))
	check(t, err)
	check(t, o.check(l2, nil))
	check(t, e2.Close())
	check(t, e.Close())
}
