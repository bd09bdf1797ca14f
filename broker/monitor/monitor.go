package monitor

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/portask/portask/broker/server"
	"github.com/portask/portask/broker/sysmetrics"
)

// Monitor watches one broker and answers on the admin listener.
type Monitor struct {
	opts     Options
	began    time.Time
	ln       net.Listener
	http     *http.Server
	registry *prometheus.Registry
	broker   atomic.Pointer[server.Server] // nil before Attach
	ledger   ledger
	profiles profiles
	requests chan struct{} // one for each request under way

	system   systemSampler
	lat      latencies
	interval atomic.Int64  // ns
	paced    chan struct{} // tells the sampler that interval has changed
	live     sync.Mutex    // held by Reload

	stop   chan struct{}
	once   sync.Once
	wg     sync.WaitGroup
	served error // of http.Serve, readable after wg.Wait
}

// New listens and begins to sample; Close ends it.
func New(o Options) (*Monitor, error) {
	o = o.WithDefaults()
	if err := o.Check(); err != nil {
		return nil, err
	}
	m := &Monitor{opts: o, began: time.Now(), requests: make(chan struct{}, requestsMax), paced: make(chan struct{}, 1), stop: make(chan struct{})}
	m.interval.Store(int64(o.Interval))
	m.ledger.init(o.TopicSeries, o.PartitionSeries)
	m.lat.init()
	var err error
	if m.system.reader, err = sysmetrics.NewReader(o.Path); err != nil {
		return nil, fmt.Errorf("monitor: %w", err)
	}
	if err := m.register(); err != nil {
		return nil, fmt.Errorf("monitor: %w", err)
	}
	if m.ln, err = o.listen(); err != nil {
		return nil, fmt.Errorf("monitor: %w", err)
	}
	if err := m.profiles.start(&o); err != nil {
		return nil, errors.Join(fmt.Errorf("monitor: %w", err), m.ln.Close())
	}
	m.http = m.server()
	m.wg.Go(m.sample)
	m.wg.Go(func() { m.served = m.http.Serve(newBounded(m.ln, connsMax, o.Clients)) })
	return m, nil
}

// listen opens the admin listener.
func (o *Options) listen() (net.Listener, error) {
	if o.Listen != "" {
		return net.Listen("tcp", o.Listen)
	}
	port := 0
	if _, text, err := net.SplitHostPort(o.Near); err == nil {
		if n, err := strconv.Atoi(text); err == nil && n > 0 && n < 1<<16-1 {
			port = n + 1
		}
	}
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil && port != 0 {
		o.Logger.Warn("the port of the admin listener is taken; another one serves it", "port", port, "err", err)
		return net.Listen("tcp", "127.0.0.1:0")
	}
	return ln, err
}

// Addr is the address of the admin listener.
func (m *Monitor) Addr() net.Addr { return m.ln.Addr() }

// Attach shows a broker from now on. It is called once; the broker may be closed
// before the Monitor, and is shown as it was then.
func (m *Monitor) Attach(s *server.Server) {
	m.lat.attach(s.Latency())
	m.broker.Store(s)
}

// Reload changes what can change while the Monitor runs: Interval, MutexFraction
// and BlockRate. The other fields of o are not looked at. After an error nothing
// has changed.
func (m *Monitor) Reload(o Options) error {
	m.live.Lock()
	defer m.live.Unlock()
	n := m.opts
	n.Interval, n.MutexFraction, n.BlockRate = o.Interval, o.MutexFraction, o.BlockRate
	n = n.WithDefaults()
	if err := n.Check(); err != nil {
		return err
	}
	select {
	case <-m.stop:
		return nil
	default:
	}
	m.interval.Store(int64(n.Interval))
	select {
	case m.paced <- struct{}{}:
	default: // it has not looked since the last one, and will find this
	}
	m.profiles.rates(&n)
	return nil
}

// Close ends the listener and cuts what is under way; it returns after every
// goroutine of the Monitor has ended, and with what made the listener fail before.
func (m *Monitor) Close() error {
	m.once.Do(func() {
		close(m.stop)
		_ = m.http.Close() // connections that fail to close are gone as well
		m.wg.Wait()
		m.profiles.stop()
	})
	if errors.Is(m.served, http.ErrServerClosed) {
		return nil
	}
	return m.served
}
