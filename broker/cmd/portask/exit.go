package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/portask/portask/broker/config"
	"github.com/portask/portask/broker/fault"
)

// Exit codes. Scripts depend on them: a number never changes its meaning.
const (
	exitOK          = 0
	exitFailure     = 1  // a failure that no other code names
	exitUsage       = 2  // unknown command or flag, missing or malformed argument
	exitNotFound    = 3  // no such topic, partition or file
	exitExists      = 4  // the name is taken
	exitInvalid     = 5  // a value is refused; the field and its limit are printed
	exitUnreachable = 6  // no broker at the address, or the connection broke
	exitTimeout     = 7  // no answer in time
	exitOutOfRange  = 8  // the offset lies outside the log; the range is printed
	exitStorage     = 9  // the disk is full, failing, locked or of a newer format
	exitCorrupted   = 10 // damaged data was found
	exitBusy        = 11 // the broker refuses work for now: full, exhausted, shutting down
	exitRefused     = 12 // not permitted, or not supported by this broker
	exitInterrupted = 130
)

const exitHelp = `  0  success
  1  a failure that no other code names
  2  usage: unknown command or flag, missing or malformed argument
  3  not found: topic, partition or file
  4  exists already
  5  a value is refused; the field and its limit are printed
  6  no broker at the address, or the connection broke
  7  no answer in time
  8  the offset lies outside the log; the valid range is printed
  9  storage: disk full or failing, directory in use or of a newer format
 10  damaged data was found
 11  the broker refuses work for now: full, exhausted, shutting down
 12  not permitted, or not supported by this broker
130  interrupted
`

// usageError is a mistake in the command line itself.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// codes maps each fault to its exit code; the others are exitFailure.
var codes = map[fault.Code]int{
	fault.NotFound: exitNotFound,

	fault.Exists: exitExists,

	fault.Invalid:          exitInvalid,
	fault.TooLarge:         exitInvalid,
	fault.LevelUnavailable: exitInvalid,
	fault.Expired:          exitInvalid,

	fault.ConnectionLost:     exitUnreachable,
	fault.VersionUnsupported: exitUnreachable,
	fault.ProtocolViolation:  exitUnreachable,
	fault.SlowPeer:           exitUnreachable,

	fault.Timeout: exitTimeout,

	fault.OutOfRange: exitOutOfRange,

	fault.StorageFailed: exitStorage,
	fault.StorageFull:   exitStorage,
	fault.Locked:        exitStorage,
	fault.NewerFormat:   exitStorage,

	fault.Corrupted: exitCorrupted,

	fault.Full:              exitBusy,
	fault.ResourceExhausted: exitBusy,
	fault.ShuttingDown:      exitBusy,
	fault.CreditExceeded:    exitBusy,

	fault.NotSupported: exitRefused,
	fault.Unauthorized: exitRefused,

	fault.Canceled: exitInterrupted,
}

// exitCode classifies err.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	if code, ok := codes[fault.CodeOf(err)]; ok {
		return code
	}
	return exitFailure
}

// report prints err on one or two lines: what failed, then what can be done.
func report(w io.Writer, err error) {
	var refused *config.Error
	if errors.As(err, &refused) {
		fmt.Fprintf(w, "portask: configuration refused\n  %s\n", strings.ReplaceAll(err.Error(), "\n", "\n  "))
		return
	}
	fmt.Fprintf(w, "portask: %v\n", err)
	if f := fault.Find(err); f != nil {
		fmt.Fprintf(w, "  %s: %s\n", f.Code, f.Info().Text)
	}
}
