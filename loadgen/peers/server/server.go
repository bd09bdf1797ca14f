// Package server starts the servers that are compared, each as a process of its
// own on a free loopback port, with a directory of its own: nats-server (from
// its Go module, by this very program), the system's redis-server, and portask.
// Nothing it started is left behind; see package launch.
package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/portask/portask/loadgen/launch"
)

// Options say what to start.
type Options struct {
	// Dir is a directory of the server's, which exists; it is not removed.
	Dir string
	// Program is this program, or one that runs NATSCommand as it does; needed
	// for NATS.
	Program string
	// Portask is the broker's binary; needed for Portask.
	Portask string
}

// Server is a running server.
type Server struct {
	*launch.Broker
	// Monitor is the address of NATS's monitoring, empty for others.
	Monitor string
	// How are the settings that were chosen, for people.
	How string
}

// startTimeout bounds a start.
const startTimeout = 20 * time.Second

// NATSCommand is the first argument with which the program becomes nats-server;
// the arguments behind it are nats-server's own.
const NATSCommand = "nats-server"

// NATS starts a nats-server. With jetStream it stores in o.Dir, and with
// syncAlways it syncs each message before it answers. All else is nats-server's
// default.
func NATS(ctx context.Context, o Options, jetStream, syncAlways bool) (*Server, error) {
	config := "listen: \"127.0.0.1:-1\"\nhttp: \"127.0.0.1:-1\"\nserver_name: loadgen-peer\nports_file_dir: " + strconv.Quote(o.Dir) + "\n"
	how := "defaults"
	if jetStream {
		sync := ""
		how = "jetstream, defaults"
		if syncAlways {
			sync, how = "\n  sync_interval: always", "jetstream, sync_interval always"
		}
		config += "jetstream {\n  store_dir: " + strconv.Quote(o.Dir) + sync + "\n}\n"
	}
	file := filepath.Join(o.Dir, "nats.conf")
	if err := os.WriteFile(file, []byte(config), 0o666); err != nil {
		return nil, err
	}
	s := &Server{How: how}
	return s.start(ctx, o, exec.Command(o.Program, NATSCommand, "-c", file), func() (addr string, err error) {
		addr, s.Monitor, err = natsPorts(o.Dir)
		return addr, err
	})
}

// Redis persistence.
const (
	// NoPersistence keeps everything in memory.
	NoPersistence = "none"
	// AppendOS writes to the append-only file before the answer and leaves
	// syncing to the operating system: appendfsync no.
	AppendOS = "os"
	// AppendEverySecond syncs the file once a second: appendfsync everysec.
	AppendEverySecond = "everysec"
	// AppendAlways syncs before the answer: appendfsync always.
	AppendAlways = "always"
)

// ErrNoRedis reports that there is no redis-server on this machine.
var ErrNoRedis = errors.New("redis-server is not installed (Debian: apt-get install redis-server)")

// Redis starts a redis-server with one of the persistences. Snapshots and
// rewriting of the append-only file are off, in Redis's favour: both fork.
func Redis(ctx context.Context, o Options, persistence string) (*Server, error) {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, ErrNoRedis
	}
	fsync, ok := map[string]string{NoPersistence: "", AppendOS: "no", AppendEverySecond: "everysec", AppendAlways: "always"}[persistence]
	if !ok {
		return nil, fmt.Errorf("redis: persistence %q: want %s, %s, %s or %s", persistence, NoPersistence, AppendOS, AppendEverySecond, AppendAlways)
	}
	args := []string{"--bind", "127.0.0.1", "--dir", o.Dir, "--save", "", "--daemonize", "no", "--auto-aof-rewrite-percentage", "0"}
	how := "no persistence"
	if fsync == "" {
		args = append(args, "--appendonly", "no")
	} else {
		args = append(args, "--appendonly", "yes", "--appendfsync", fsync)
		how = "appendonly yes, appendfsync " + fsync
	}
	// Redis has no port 0. Another process may take a free port before it does:
	// then it ends, and another port is tried.
	for try := 1; ; try++ {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		s := &Server{How: how}
		addr := net.JoinHostPort("127.0.0.1", port)
		s, err = s.start(ctx, o, exec.Command(binary, append(args, "--port", port)...), func() (string, error) {
			if !pings(addr) {
				return "", nil
			}
			return addr, nil
		})
		if err == nil || try == 3 || ctx.Err() != nil {
			return s, err
		}
	}
}

// Portask starts `portask serve`. args are more of its flags.
func Portask(ctx context.Context, o Options, args ...string) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	b, err := launch.Start(ctx, launch.Options{
		Binary: o.Portask, Data: filepath.Join(o.Dir, "data"), Listen: "127.0.0.1:0",
		AddrFile: filepath.Join(o.Dir, "addr"), LogFile: filepath.Join(o.Dir, "log"), Args: args,
	})
	if err != nil {
		return nil, err
	}
	how := "defaults"
	for i, a := range args {
		if i == 0 {
			how = a
			continue
		}
		how += " " + a
	}
	return &Server{Broker: b, How: how}, nil
}

func (s *Server) start(ctx context.Context, o Options, cmd *exec.Cmd, ready func() (string, error)) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var err error
	s.Broker, err = launch.Command(ctx, cmd, filepath.Join(o.Dir, "log"), ready)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// pings reports whether a Redis answers at addr.
func pings(addr string) bool {
	const wait = time.Second
	c, err := net.DialTimeout("tcp", addr, wait)
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	var b [5]byte
	n, _ := c.Read(b[:])
	return string(b[:n]) == "+PONG"
}
