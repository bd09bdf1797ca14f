package monitor

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/portask/portask/broker/fault"
)

// Options configure a Monitor. The zero value of everything is a safe default.
type Options struct {
	// Listen is the TCP address of the admin listener; port 0 takes a free one.
	// An address that is not loopback needs Exposed. Empty is 127.0.0.1 and the
	// port above Near's; if that is taken, any free one.
	Listen string
	// Near is the address of the data listener; only an empty Listen looks at it.
	Near    string
	Exposed bool
	// Clients are the addresses that may connect; none means all.
	Clients []netip.Prefix
	// NoProfiling leaves /debug/ out.
	NoProfiling bool

	// Interval is that of the Report's latencies, and the age at which a reading
	// of the system is made anew for who asks.
	Interval time.Duration
	// TopicSeries and PartitionSeries bound the topics and the partitions that
	// have metrics of their own; those beyond are summed as topic "(other)".
	// -1 is none. The Report has its own bounds.
	TopicSeries, PartitionSeries int

	// MutexFraction has one of so many contended locks sampled, BlockRate one
	// blocking event per so much time blocked; 0 is off. See
	// runtime.SetMutexProfileFraction and SetBlockProfileRate.
	MutexFraction int
	BlockRate     time.Duration
	// FlightBytes bounds the memory of the flight recorder, 0 is off; FlightAge
	// is how far back it reaches if that suffices.
	FlightBytes int
	FlightAge   time.Duration

	// What the Report and the metrics say of the broker.
	Version, Node string
	// Path lies on the file system whose space and device are watched; empty is
	// none.
	Path   string
	Logger *slog.Logger
}

// Limits of the options.
const (
	IntervalMin = 100 * time.Millisecond
	IntervalMax = time.Minute
	SeriesMax   = 100_000

	FlightBytesMin = 1 << 20
	FlightBytesMax = 1 << 30
	FlightAgeMin   = 100 * time.Millisecond
	FlightAgeMax   = 10 * time.Minute
)

// WithDefaults returns o with everything that is zero and has a default replaced
// by it.
func (o Options) WithDefaults() Options {
	if o.Interval == 0 {
		o.Interval = 2 * time.Second
	}
	if o.TopicSeries == 0 {
		o.TopicSeries = 100
	}
	if o.PartitionSeries == 0 {
		o.PartitionSeries = 200
	}
	if o.FlightAge == 0 {
		o.FlightAge = 10 * time.Second
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Check reports every violation, each as a *fault.Error that names its field.
func (o *Options) Check() error {
	var errs []error
	bad := func(field, format string, args ...any) *fault.Error {
		e := fault.New(fault.Invalid, "check monitor options").WithField(field).WithDetail(format, args...)
		errs = append(errs, e)
		return e
	}
	if o.Listen != "" {
		host, _, err := net.SplitHostPort(o.Listen)
		switch {
		case err != nil:
			bad("monitor_listen", "%v", err)
		case !o.Exposed && !isLoopback(host):
			bad("monitor_listen", "%q is not a loopback address and the admin listener has no authentication; set admin_exposed to serve it all the same", o.Listen)
		}
	}
	if o.Interval < IntervalMin || o.Interval > IntervalMax {
		bad("monitor_interval", "%v is outside [%v, %v]", o.Interval, IntervalMin, IntervalMax)
	}
	series := func(field string, n int) {
		if n < -1 || n > SeriesMax {
			bad(field, "%d is outside [-1, %d]", n, SeriesMax)
		}
	}
	series("topic_series", o.TopicSeries)
	series("partition_series", o.PartitionSeries)
	if o.MutexFraction < 0 {
		bad("mutex_profile", "%d is negative", o.MutexFraction)
	}
	if o.BlockRate < 0 {
		bad("block_profile", "%v is negative", o.BlockRate)
	}
	if n := o.FlightBytes; n != 0 && (n < FlightBytesMin || n > FlightBytesMax) {
		bad("flight_recorder", "%d is neither 0 nor in [%d, %d]", n, FlightBytesMin, FlightBytesMax)
	}
	if o.FlightAge < FlightAgeMin || o.FlightAge > FlightAgeMax {
		bad("flight_window", "%v is outside [%v, %v]", o.FlightAge, FlightAgeMin, FlightAgeMax)
	}
	return errors.Join(errs...)
}

// isLoopback reports whether only this machine reaches a host.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// ParseClients reads a list of addresses and networks, separated by commas:
// "10.0.0.0/8, 192.168.1.5". Empty is none.
func ParseClients(s string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			if strings.TrimSpace(s) == "" {
				return nil, nil
			}
			return nil, fault.New(fault.Invalid, "read client addresses").WithField("clients").WithDetail("%q has an empty entry", s)
		}
		p, err := netip.ParsePrefix(part)
		if err != nil {
			a, aerr := netip.ParseAddr(part)
			if aerr != nil || a.Zone() != "" {
				return nil, fault.New(fault.Invalid, "read client addresses").WithField("clients").
					WithDetail("%q is neither an IP address nor a network like 10.0.0.0/8", part)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if p.Addr().Is4In6() {
			return nil, fault.New(fault.Invalid, "read client addresses").WithField("clients").
				WithDetail("%q: write an IPv4 address as such", part)
		}
		all = append(all, p.Masked())
	}
	return all, nil
}
