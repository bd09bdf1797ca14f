package fault

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
)

// stacks: New notes where it was called from.
var stacks atomic.Bool

// CaptureStacks makes New note where it was called from, or not any more, in the
// whole process. It costs about 0.2 µs and 256 bytes for each error, so it is off
// unless somebody looks for a defect.
func CaptureStacks(on bool) { stacks.Store(on) }

// stackDepth is how many callers are noted. The innermost tell most.
const stackDepth = 32

// callers returns who called the caller of the exported function that calls it.
func callers() []uintptr {
	pcs := make([]uintptr, stackDepth)
	return pcs[:runtime.Callers(3, pcs)]
}

// WithStack notes where it is called from, unless the place is known already.
func (e *Error) WithStack() *Error {
	if e.stack == nil {
		e.stack = callers()
	}
	return e
}

// Recovered returns a panic's value as an Internal error with the stack of the
// panic, for the few boundaries where a panic must not end the process. It is
// to be called from the deferred function that recovered it; nil gives nil.
func Recovered(op string, value any) *Error {
	if value == nil {
		return nil
	}
	e := &Error{Code: Internal, Op: op, stack: callers()}
	if err, ok := value.(error); ok {
		e.Detail, e.Err = "panic", err
	} else {
		e.Detail = fmt.Sprintf("panic: %v", value)
	}
	return e
}

// Stack returns where err, or the innermost of its causes that knows, was made:
// a line for each function, the innermost first, and "" if nobody noted it.
func Stack(err error) string {
	pcs := stackOf(err)
	if len(pcs) == 0 {
		return ""
	}
	var b strings.Builder
	frames := runtime.CallersFrames(pcs)
	for {
		f, more := frames.Next()
		if f.Function != "" {
			fmt.Fprintf(&b, "%s\n\t%s:%d\n", f.Function, f.File, f.Line)
		}
		if !more {
			return b.String()
		}
	}
}

// stackOf finds the innermost stack in err's tree; of joined errors the first.
func stackOf(err error) (pcs []uintptr) {
	for err != nil {
		if e, ok := err.(*Error); ok && e != nil && e.stack != nil {
			pcs = e.stack
		}
		switch x := err.(type) {
		case interface{ Unwrap() error }:
			err = x.Unwrap()
		case interface{ Unwrap() []error }:
			for _, each := range x.Unwrap() {
				if inner := stackOf(each); inner != nil {
					return inner
				}
			}
			return pcs
		default:
			return pcs
		}
	}
	return pcs
}
