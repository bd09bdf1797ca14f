package fault

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/portask/portask/loadgen/launch"
)

const (
	// startTimeout bounds a start, recovery of the log included; stopTimeout a
	// graceful end.
	startTimeout = 30 * time.Second
	stopTimeout  = 30 * time.Second
)

// Server is a broker of loadgen's own: one process after another on the same
// data and the same address. Its methods are for one goroutine.
type Server struct {
	binary string
	dir    string
	args   []string
	own    bool // dir was made by StartServer
	broker *launch.Broker
}

// StartServer starts a broker on a free loopback port. It keeps its data, its
// address and its log (broker.log) in dir, or in a temporary directory if dir is
// empty. End ends it.
func StartServer(ctx context.Context, binary, dir string, args ...string) (*Server, error) {
	s := &Server{binary: binary, dir: dir, args: args}
	if dir == "" {
		var err error
		if s.dir, err = os.MkdirTemp("", "loadgen-broker-"); err != nil {
			return nil, err
		}
		s.own = true
	}
	if err := s.start(ctx, "127.0.0.1:0"); err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, listen string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	b, err := launch.Start(ctx, launch.Options{
		Binary: s.binary, Data: filepath.Join(s.dir, "data"), Listen: listen,
		AddrFile: filepath.Join(s.dir, "addr"), LogFile: s.Log(), Args: append([]string{"--admin-addr-file", s.adminFile()}, s.args...),
	})
	if err == nil {
		s.broker = b
	}
	return err
}

// Addr is where it serves.
func (s *Server) Addr() string { return s.broker.Addr() }

// PID of the process that serves.
func (s *Server) PID() int { return s.broker.PID() }

func (s *Server) adminFile() string { return filepath.Join(s.dir, "admin-addr") }

// Admin is the address of its admin listener now, empty if it has none.
func (s *Server) Admin() (string, error) {
	b, err := os.ReadFile(s.adminFile())
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

// Log is the file that its words are appended to.
func (s *Server) Log() string { return filepath.Join(s.dir, "broker.log") }

// Ended is closed when the process has ended, for whatever reason.
func (s *Server) Ended() <-chan struct{} { return s.broker.Ended() }

// Kill ends it with SIGKILL; Again starts it on the same data and address.
func (s *Server) Kill() { s.broker.Kill() }

// Again starts the broker that was killed or stopped.
func (s *Server) Again(ctx context.Context) error { return s.start(ctx, s.broker.Addr()) }

// Stop ends it with SIGTERM.
func (s *Server) Stop() error { return s.broker.Stop(stopTimeout) }

// End stops it, and removes the data if keep is false and the directory was
// made by StartServer.
func (s *Server) End(keep bool) error {
	err := s.Stop()
	if !keep {
		s.remove()
	}
	return err
}

// Dir is where its data and its log are.
func (s *Server) Dir() string { return s.dir }

func (s *Server) remove() {
	if s.own {
		os.RemoveAll(s.dir)
	}
}
