package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"runtime/pprof"

	"github.com/portask/portask/ci/kernel"
)

func runKernel(_ context.Context, args []string) (err error) {
	fs := flags("kernel")
	var o kernel.Options
	fs.StringVar(&o.File, "file", "", "region file, created and removed at the end")
	fs.Int64Var(&o.RegionBytes, "region", 256<<20, "bytes of the region")
	fs.IntVar(&o.ReadBytes, "read", 0, "bytes of the receive buffer (0: the default)")
	fs.BoolVar(&o.Gather, "gather", false, "one pwrite and one sendfile a read instead of a batch")
	addrFile := fs.String("addr-file", "", "file that receives the address once the kernel accepts")
	profile := fs.String("cpuprofile", "", "file for a CPU profile of the copying")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if o.File == "" || *addrFile == "" {
		return errors.New("kernel: --file and --addr-file are needed")
	}
	s, err := kernel.Listen(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := os.WriteFile(*addrFile+".new", []byte(s.Addr().String()), 0o600); err != nil {
		return err
	}
	if err := os.Rename(*addrFile+".new", *addrFile); err != nil {
		return err
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	stats, err := s.Serve()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(stats)
}
