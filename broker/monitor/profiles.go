package monitor

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"runtime"
	"runtime/trace"
	"strconv"
	"sync"
	"time"

	"github.com/portask/portask/broker/fault"
)

// profileMax bounds how long a CPU profile or a trace may be asked for.
const profileMax = 5 * time.Minute

// profiles serves /debug/. The rates and the flight recorder belong to the
// process: there is one Monitor that sets them.
type profiles struct {
	busy   sync.Mutex            // held while something is recorded or dumped
	flight *trace.FlightRecorder // nil: off
	mutex  int                   // fraction before
}

func (p *profiles) start(o *Options) error {
	p.mutex = runtime.SetMutexProfileFraction(-1)
	p.rates(o)
	if o.FlightBytes == 0 {
		return nil
	}
	p.flight = trace.NewFlightRecorder(trace.FlightRecorderConfig{MinAge: o.FlightAge, MaxBytes: uint64(o.FlightBytes)})
	if err := p.flight.Start(); err != nil {
		p.flight = nil
		return fmt.Errorf("flight recorder: %w", err)
	}
	return nil
}

func (p *profiles) rates(o *Options) {
	runtime.SetMutexProfileFraction(o.MutexFraction)
	runtime.SetBlockProfileRate(int(o.BlockRate.Nanoseconds()))
}

// stop leaves the process as it was found.
func (p *profiles) stop() {
	if p.flight != nil {
		p.flight.Stop()
	}
	runtime.SetMutexProfileFraction(p.mutex)
	runtime.SetBlockProfileRate(0)
}

// handle adds the paths. What takes seconds, or dumps megabytes, is done for one
// at a time.
func (p *profiles) handle(mux *http.ServeMux) {
	over := p.alone(0, pprof.Index) // the difference over some seconds
	mux.HandleFunc("GET /debug/pprof/", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("seconds") != "" {
			over(w, r)
			return
		}
		pprof.Index(w, r)
	})
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/profile", p.alone(30*time.Second, pprof.Profile))
	mux.HandleFunc("GET /debug/pprof/trace", p.alone(time.Second, pprof.Trace))
	mux.HandleFunc("GET /debug/flight", p.alone(0, p.dump))
}

// alone runs h if nothing else does, and if the seconds that it asks for, or usual,
// are not too many.
func (p *profiles) alone(usual time.Duration, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		seconds := usual.Seconds()
		if text := r.FormValue("seconds"); text != "" {
			var err error
			if seconds, err = strconv.ParseFloat(text, 64); err != nil {
				refuse(w, fault.New(fault.Invalid, "profile").WithField("seconds").WithDetail("%.20q is not a number", text))
				return
			}
		}
		if !(seconds >= 0 && seconds <= profileMax.Seconds()) {
			refuse(w, fault.New(fault.TooLarge, "profile").WithField("seconds").WithDetail("at most %v", profileMax))
			return
		}
		if !p.busy.TryLock() {
			refuse(w, fault.New(fault.ResourceExhausted, "profile").WithField("profile").
				WithDetail("another one is being recorded").WithRetryAfter(time.Second))
			return
		}
		defer p.busy.Unlock()
		h(w, r)
	}
}

// dump answers with what the flight recorder holds: a trace for `go tool trace`.
func (p *profiles) dump(w http.ResponseWriter, _ *http.Request) {
	if p.flight == nil {
		refuse(w, fault.New(fault.NotFound, "dump flight recorder").WithField("flight_recorder").WithDetail("it is off; see monitoring.flight_recorder"))
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="portask.trace"`)
	_, _ = p.flight.WriteTo(w) // an error is the connection's, which is gone
}
