// Command core is the broker without what surrounds it: server, disklog,
// partitions, pools, codecs and compressors, with one data directory and
// defaults, and no command line, metrics endpoint or terminal view. The test of
// an idle broker's memory starts it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	_ "github.com/portask/portask/broker/client" // with serialization and compression
	_ "github.com/portask/portask/broker/config"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/server"
	"github.com/portask/portask/broker/storage/disklog"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir string) error {
	engine, err := disklog.Open(vfs.OS(), dir, disklog.Options{})
	if err != nil {
		return err
	}
	defer engine.Close()
	o := server.Options{}.WithDefaults()
	o.Engine, o.Listen = engine, "127.0.0.1:0"
	s, err := server.New(o)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	fmt.Println("portask: serving on", s.Addr())
	time.AfterFunc(time.Second, debug.FreeOSMemory) // as `portask serve` does once it is idle
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		return err
	}
	return <-done
}
