package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/portask/portask/broker/config"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/monitor"
)

// Words for monitoring.listen.
const (
	adminAuto = "auto"
	adminOff  = "off"
)

// anyClient is the word for security.admin_clients.
const anyClient = "any"

// monitorSettings are what `portask serve` makes a monitor.Monitor of.
type monitorSettings struct {
	monitor.Options
	listen    string // adminAuto, adminOff or an address
	addrFile  string
	clients   string
	profiling bool
}

func newMonitorSettings() monitorSettings {
	return monitorSettings{Options: monitor.Options{}.WithDefaults(), listen: adminAuto, clients: anyClient, profiling: true}
}

// monitoringArea is bound to o.
func (o *brokerOptions) monitoringArea() config.Area {
	m := &o.monitor
	return config.Area{Name: "monitoring", Doc: "Metrics, health and profiles, on an admin listener of their own.", Keys: []config.Key{
		{Name: "listen", Flag: "admin-listen", Field: "monitor_listen", Value: config.String(&m.listen, "auto, off or host:port", between(1, 256)),
			Doc: "Address of the admin listener. auto is 127.0.0.1 and the port above the broker's, or a free one if that is taken; off measures nothing."},
		{Name: "address_file", Flag: "admin-addr-file", Value: config.String(&m.addrFile, "", nil),
			Doc: "The address that is served is written to this file, for whoever waits for it."},
		{Name: "interval", Field: "monitor_interval", Live: true, Value: config.Duration(&m.Interval, monitor.IntervalMin, monitor.IntervalMax),
			Doc: "What \"the last interval\" of latencies is, and how old a reading of the system may be that is shown."},
		{Name: "topic_series", Field: "topic_series", Value: config.Count(&m.TopicSeries, 1, monitor.SeriesMax).Or("none", -1),
			Doc: "Topics with metrics of their own, first come first served; those beyond are summed as topic (other)."},
		{Name: "partition_series", Field: "partition_series", Value: config.Count(&m.PartitionSeries, 1, monitor.SeriesMax).Or("none", -1),
			Doc: "Partitions with metrics of their own: of topics that have them, as long as all partitions of one fit."},
		{Name: "mutex_profile", Field: "mutex_profile", Live: true, Value: config.Count(&m.MutexFraction, 1, 1_000_000).Or("off", 0),
			Doc: "One of so many waits for a lock goes into /debug/pprof/mutex."},
		{Name: "block_profile", Field: "block_profile", Live: true, Value: config.Duration(&m.BlockRate, time.Microsecond, time.Hour).Or("off", 0),
			Doc: "Goroutines that wait go into /debug/pprof/block, about one for each such time waited."},
		{Name: "flight_recorder", Field: "flight_recorder", Value: config.Size(&m.FlightBytes, monitor.FlightBytesMin, monitor.FlightBytesMax).Or("off", 0),
			Doc: "Memory for the last seconds of the execution trace, which /debug/flight returns. It costs a few percent of the processor time."},
		{Name: "flight_window", Field: "flight_window", Value: config.Duration(&m.FlightAge, monitor.FlightAgeMin, monitor.FlightAgeMax),
			Doc: "How far back the flight recorder reaches, if its memory suffices."},
	}}
}

// securityArea is bound to o.
func (o *brokerOptions) securityArea() config.Area {
	m := &o.monitor
	return config.Area{Name: "security", Doc: "Who may see the admin listener, which has no authentication.", Keys: []config.Key{
		{Name: "admin_exposed", Flag: "admin-exposed", Value: config.Bool(&m.Exposed),
			Doc: "Let monitoring.listen be an address that is not loopback."},
		{Name: "admin_clients", Field: "clients", Value: config.String(&m.clients, "any, or IP addresses and networks between commas", nil),
			Doc: "Who may connect, like 10.0.0.0/8,192.168.1.5; connections of others are closed."},
		{Name: "admin_profiling", Value: config.Bool(&m.profiling),
			Doc: "Serve /debug/: profiles name functions and command line, and recording one takes processor time."},
	}}
}

// options are those of the component.
func (m *monitorSettings) options() (monitor.Options, error) {
	o := m.Options
	o.NoProfiling = !m.profiling
	if m.listen != adminAuto && m.listen != adminOff {
		o.Listen = m.listen
	}
	o.Clients = nil
	if m.clients == anyClient {
		return o, nil
	}
	clients, err := monitor.ParseClients(m.clients)
	if err == nil && len(clients) == 0 {
		err = fault.New(fault.Invalid, "read client addresses").WithField("clients").WithDetail("is empty; %s lets all connect", anyClient)
	}
	o.Clients = clients
	return o, err
}

func (m *monitorSettings) check() error {
	o, err := m.options()
	return errors.Join(err, o.Check())
}

// startMonitor opens the admin listener; nil if it is off.
func (o *brokerOptions) startMonitor(log *slog.Logger) (*monitor.Monitor, error) {
	if o.monitor.listen == adminOff {
		return nil, nil
	}
	mo, err := o.monitor.options()
	if err != nil {
		return nil, err
	}
	mo.Near, mo.Node, mo.Version, mo.Logger = o.server.Listen, o.server.NodeID, versionText(), log
	if o.engine == engineDisk {
		mo.Path = o.data
	}
	m, err := monitor.New(mo)
	if err != nil {
		return nil, fmt.Errorf("admin listener: %w", err)
	}
	addr := m.Addr().String()
	if name := o.monitor.addrFile; name != "" {
		if err := writeAddress(name, addr); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	log.Info("admin listener", "address", addr, "clients", clientsText(mo.Clients))
	return m, nil
}

// clientsText is how a log line names the clients.
func clientsText(p []netip.Prefix) any {
	if len(p) == 0 {
		return anyClient
	}
	return p
}
