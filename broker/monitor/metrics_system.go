package monitor

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/portask/portask/broker/sysmetrics"
)

// Metrics of the machine and the control group.
var (
	systemDescs described

	dCPU       = systemDescs.desc("system_cpu_seconds_total", "Processor time of the machine by mode: busy, idle, iowait, steal.", "mode")
	dProcs     = systemDescs.desc("system_processors", "Logical processors of the machine.")
	dLoad1     = systemDescs.desc("system_load1", "Load average of one minute.")
	dLoad5     = systemDescs.desc("system_load5", "Load average of five minutes.")
	dLoad15    = systemDescs.desc("system_load15", "Load average of fifteen minutes.")
	dMemory    = systemDescs.desc("system_memory_bytes", "Memory of the machine.")
	dAvailable = systemDescs.desc("system_memory_available_bytes", "Memory that new work may take without swapping.")
	dSwap      = systemDescs.desc("system_swap_bytes", "Swap space of the machine.")
	dSwapUsed  = systemDescs.desc("system_swap_used_bytes", "Swap space in use.")

	dDiskSize   = systemDescs.desc("disk_size_bytes", "Size of the file system of the data directory.")
	dDiskFree   = systemDescs.desc("disk_free_bytes", "Free space of the file system of the data directory.")
	dDiskRead   = systemDescs.desc("disk_read_bytes_total", "Bytes read from the device under the data directory, by anybody.", "device")
	dDiskWrite  = systemDescs.desc("disk_written_bytes_total", "Bytes written to the device under the data directory, by anybody.", "device")
	dDiskReads  = systemDescs.desc("disk_reads_total", "Reads of the device under the data directory.", "device")
	dDiskWrites = systemDescs.desc("disk_writes_total", "Writes of the device under the data directory.", "device")
	dDiskBusy   = systemDescs.desc("disk_busy_seconds_total", "Time in which the device under the data directory had work.", "device")

	dNetIn    = systemDescs.desc("system_network_received_bytes_total", "Bytes received by all interfaces but loopback.")
	dNetOut   = systemDescs.desc("system_network_sent_bytes_total", "Bytes sent by all interfaces but loopback.")
	dNetErrs  = systemDescs.desc("system_network_errors_total", "Errors of all interfaces but loopback, both directions.")
	dNetDrops = systemDescs.desc("system_network_drops_total", "Packets dropped by all interfaces but loopback, both directions.")

	dGroupLimit   = systemDescs.desc("cgroup_memory_limit_bytes", "Memory limit of the control group; left out where there is none.")
	dGroupMemory  = systemDescs.desc("cgroup_memory_bytes", "Memory of the control group, page cache included.")
	dGroupCPUs    = systemDescs.desc("cgroup_cpus", "Processor quota of the control group, in processors; left out where there is none.")
	dGroupThrot   = systemDescs.desc("cgroup_throttled_seconds_total", "Time in which the control group was out of quota.")
	dGroupOOM     = systemDescs.desc("cgroup_oom_kills_total", "Processes of the control group that were killed for memory.")
	dPressureSome = systemDescs.desc("pressure_waiting_seconds_total", "Time in which some tasks waited for a resource: of the control group where it is counted, else of the machine.", "resource")
	dPressureFull = systemDescs.desc("pressure_stalled_seconds_total", "Time in which all tasks waited for a resource.", "resource")
)

// systemCollector gives readings that are at most an interval old.
type systemCollector struct{ m *Monitor }

func (c systemCollector) Describe(ch chan<- *prometheus.Desc) {
	for i := range systemDescs {
		ch <- systemDescs[i].desc
	}
}

func (c systemCollector) Collect(ch chan<- prometheus.Metric) {
	e, s := emitter(ch), c.m.systemNow()
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	h := &s.Host
	counter(dCPU, h.Busy.Seconds(), "busy")
	counter(dCPU, h.Idle.Seconds(), "idle")
	counter(dCPU, h.IOWait.Seconds(), "iowait")
	counter(dCPU, h.Steal.Seconds(), "steal")
	e.gauge(dProcs, float64(h.Processors))
	e.gauge(dLoad1, h.Load1)
	e.gauge(dLoad5, h.Load5)
	e.gauge(dLoad15, h.Load15)
	e.gauge(dMemory, float64(h.MemoryBytes))
	e.gauge(dAvailable, float64(h.AvailableBytes))
	e.gauge(dSwap, float64(h.SwapBytes))
	e.gauge(dSwapUsed, float64(h.SwapUsedBytes))
	if d := &s.Disk; d.TotalBytes > 0 {
		e.gauge(dDiskSize, float64(d.TotalBytes))
		e.gauge(dDiskFree, float64(d.FreeBytes))
		if d.Device != "" {
			e.count(dDiskRead, d.ReadBytes, d.Device)
			e.count(dDiskWrite, d.WriteBytes, d.Device)
			e.count(dDiskReads, d.Reads, d.Device)
			e.count(dDiskWrites, d.Writes, d.Device)
			counter(dDiskBusy, d.Busy.Seconds(), d.Device)
		}
	}
	e.count(dNetIn, s.Network.BytesIn)
	e.count(dNetOut, s.Network.BytesOut)
	e.count(dNetErrs, s.Network.Errors)
	e.count(dNetDrops, s.Network.Drops)
	if s.Limits.Memory.Version != 0 || s.Limits.CPU.Version != 0 {
		if n := s.Limits.EffectiveMemoryBytes(); n > 0 {
			e.gauge(dGroupLimit, float64(n))
		}
		if s.Limits.CPUs > 0 {
			e.gauge(dGroupCPUs, s.Limits.CPUs)
		}
		e.gauge(dGroupMemory, float64(s.Usage.MemoryBytes))
		counter(dGroupThrot, s.Usage.Throttled.Seconds())
		e.count(dGroupOOM, s.Usage.OOMKills)
	}
	if !s.HasPressure {
		return
	}
	for name, p := range map[string]sysmetrics.Stall{"cpu": s.Pressure.CPU, "memory": s.Pressure.Memory, "io": s.Pressure.IO} {
		counter(dPressureSome, p.Some.Seconds(), name)
		counter(dPressureFull, p.Full.Seconds(), name)
	}
}
