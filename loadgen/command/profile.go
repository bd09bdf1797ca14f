package command

import (
	"fmt"
	"os"
	"runtime/pprof"

	"github.com/spf13/cobra"
)

// profiled gives root the flag --cpuprofile. The profile begins before a
// subcommand's work and is complete once the returned function was called, also
// after an error. It is loadgen's own; a broker's comes with run --admin.
func profiled(root *cobra.Command) (end func()) {
	name := root.PersistentFlags().String("cpuprofile", "", "file for a CPU profile of loadgen itself")
	var f *os.File
	root.PersistentPreRunE = func(*cobra.Command, []string) (err error) {
		if *name == "" {
			return nil
		}
		if f, err = os.Create(*name); err != nil {
			return err
		}
		return pprof.StartCPUProfile(f)
	}
	return func() {
		if f == nil {
			return
		}
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "loadgen: --cpuprofile:", err)
		}
	}
}
