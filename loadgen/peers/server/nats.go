package server

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// RunNATS is nats-server: it takes its arguments, and returns when it was
// stopped by a signal.
func RunNATS(args []string) error {
	fs := flag.NewFlagSet("nats-server", flag.ContinueOnError)
	o, err := natsserver.ConfigureOptions(fs, args, natsserver.PrintServerAndExit, fs.Usage, natsserver.PrintTLSHelpAndDie)
	if err != nil {
		return fmt.Errorf("nats-server: %w", err)
	}
	s, err := natsserver.NewServer(o)
	if err != nil {
		return fmt.Errorf("nats-server: %w", err)
	}
	s.ConfigureLogger()
	if err := natsserver.Run(s); err != nil {
		return fmt.Errorf("nats-server: %w", err)
	}
	s.WaitForShutdown()
	return nil
}

// natsPorts reads the file in which nats-server tells its ports; empty if it is
// not there yet.
func natsPorts(dir string) (clients, monitoring string, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.ports"))
	if err != nil || len(names) == 0 {
		return "", "", err
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		return "", "", err
	}
	var ports struct {
		NATS       []string `json:"nats"`
		Monitoring []string `json:"monitoring"`
	}
	if json.Unmarshal(b, &ports) != nil {
		return "", "", nil // it is being written
	}
	if len(ports.NATS) == 0 || len(ports.Monitoring) == 0 {
		return "", "", errors.New("nats-server told no ports")
	}
	c, err1 := url.Parse(ports.NATS[0])
	m, err2 := url.Parse(ports.Monitoring[0])
	if err := errors.Join(err1, err2); err != nil {
		return "", "", err
	}
	return c.Host, m.Host, nil
}
