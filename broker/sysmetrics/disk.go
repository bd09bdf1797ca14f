package sysmetrics

import (
	"fmt"
	"time"

	"github.com/shirou/gopsutil/v3/disk"
	"github.com/shirou/gopsutil/v3/net"
)

// DiskSample is a file system and the device under it.
type DiskSample struct {
	TotalBytes int64
	FreeBytes  int64 // for processes without privileges
	// Device is the kernel's name of the device, empty where there is none (a
	// network or memory file system) or the system does not tell; the counters
	// are 0 then. They are cumulative since the machine started and count
	// everybody's work on the device.
	Device                string
	ReadBytes, WriteBytes uint64
	Reads, Writes         uint64
	// Busy is the time in which at least one request was under way. A disk that
	// serves several at once may be busy all the time and have room.
	Busy time.Duration
}

// Disk reads the file system that holds path.
func Disk(path string) (DiskSample, error) {
	u, err := disk.Usage(path)
	if err != nil {
		return DiskSample{}, fmt.Errorf("disk usage of %s: %w", path, err)
	}
	s := DiskSample{TotalBytes: int64(u.Total), FreeBytes: int64(u.Free)}
	name := device(path)
	if name == "" {
		return s, nil
	}
	io, err := disk.IOCounters(name)
	if err != nil {
		return s, fmt.Errorf("counters of disk %s: %w", name, err)
	}
	if c, ok := io[name]; ok {
		s.Device, s.ReadBytes, s.WriteBytes, s.Reads, s.Writes = name, c.ReadBytes, c.WriteBytes, c.ReadCount, c.WriteCount
		s.Busy = time.Duration(c.IoTime) * time.Millisecond
	}
	return s, nil
}

// NetworkSample sums the interfaces of the machine, or of the process's network
// namespace, loopback apart. Counters are cumulative.
type NetworkSample struct {
	BytesIn, BytesOut     uint64
	PacketsIn, PacketsOut uint64
	Errors, Drops         uint64 // in both directions
}

// Network reads a NetworkSample.
func Network() (NetworkSample, error) {
	all, err := net.IOCounters(true)
	if err != nil {
		return NetworkSample{}, fmt.Errorf("network: %w", err)
	}
	var s NetworkSample
	for _, i := range all {
		if loopback(i.Name) {
			continue
		}
		s.BytesIn += i.BytesRecv
		s.BytesOut += i.BytesSent
		s.PacketsIn += i.PacketsRecv
		s.PacketsOut += i.PacketsSent
		s.Errors += i.Errin + i.Errout
		s.Drops += i.Dropin + i.Dropout
	}
	return s, nil
}

// loopback tells by the name, which is cheaper than asking for the flags of each
// interface: "lo", "lo0" and Windows' pseudo interfaces.
func loopback(name string) bool {
	return name == "lo" || name == "lo0" || len(name) >= 8 && name[:8] == "Loopback"
}
