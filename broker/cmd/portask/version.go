package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the build: -ldflags '-X main.version=...'.
var version string

// versionText is version, else what the Go toolchain recorded, else "unknown".
func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "unknown"
}

type versionReport struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersion(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versionReport{versionText(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return g.print(cmd.OutOrStdout(), v, nil, [][]string{
				{"portask", v.Version}, {"go", v.Go}, {"platform", v.Platform},
			})
		},
	}
}
