package lab

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// KernelProfile runs the calibration kernel once under its CPU profiler and
// returns the share of samples, 0 to 1, that were in system calls and in
// CRC32C. A kernel that spends its time elsewhere is no yardstick.
//
// It needs the go command, for `go tool pprof`.
func (l *Lab) KernelProfile(ctx context.Context, o Load) (share float64, r Round, err error) {
	dir, remove, err := l.scratch()
	if err != nil {
		return 0, r, err
	}
	defer remove()
	o.Profile = filepath.Join(dir, "kernel.pprof")
	if r, err = l.Round(ctx, Kernel, o); err != nil {
		return 0, r, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute) // the first use builds pprof
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-nodecount=1000000", "-nodefraction=0", "-unit=ms", l.Perflab, o.Profile)
	b, err := cmd.Output()
	if err != nil {
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, e.Stderr)
		}
		return 0, r, fmt.Errorf("go tool pprof: %w", err)
	}
	share, err = syscallAndCRCShare(string(b))
	return share, r, err
}

// syscallAndCRCShare reads the table of `go tool pprof -top`:
//
//	flat  flat%   sum%        cum   cum%
//	620ms 62.00% 62.00%      620ms 62.00%  internal/runtime/syscall/linux.Syscall6
func syscallAndCRCShare(top string) (float64, error) {
	var total, wanted float64
	inTable := false
	for line := range strings.Lines(top) {
		f := strings.Fields(line)
		if !inTable {
			inTable = len(f) > 0 && f[0] == "flat"
			continue
		}
		if len(f) < 6 {
			continue
		}
		flat, err := strconv.ParseFloat(strings.TrimSuffix(f[0], "ms"), 64)
		if err != nil {
			return 0, fmt.Errorf("pprof line %q: %w", strings.TrimSpace(line), err)
		}
		total += flat
		if inKernelOrCRC(f[5]) {
			wanted += flat
		}
	}
	if total == 0 {
		return 0, errors.New("the profile has no samples")
	}
	return wanted / total, nil
}

// inKernelOrCRC tells from the innermost function of a sample. A thread that
// is in the operating system is sampled at the instruction that entered it.
func inKernelOrCRC(function string) bool {
	for _, prefix := range []string{"internal/runtime/syscall", "syscall.", "hash/crc32."} {
		if strings.HasPrefix(function, prefix) {
			return true
		}
	}
	return false
}
