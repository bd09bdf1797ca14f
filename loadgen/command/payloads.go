package command

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portask/portask/loadgen/corpus"
)

// payloadsCommand writes the corpus to files, for programs that measure on it and
// do not link this one.
func payloadsCommand() *cobra.Command {
	var out string
	var bytes int
	var seed uint64
	c := &cobra.Command{
		Use:   "payloads --out DIR",
		Short: "Write generated payloads and the test data of Go modules to files, a directory for each class",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if out == "" {
				return fmt.Errorf("--out: name a directory")
			}
			n, err := writePayloads(c.Context(), out, bytes, seed)
			if err == nil {
				fmt.Fprintf(c.OutOrStdout(), "%d files below %s\n", n, out)
			}
			return err
		},
	}
	c.Flags().StringVar(&out, "out", "", "directory to write to; made if it does not exist")
	c.Flags().IntVar(&bytes, "bytes", 512<<10, "bytes of each generated file")
	c.Flags().Uint64Var(&seed, "seed", 1, "of the generated files; the same gives the same bytes")
	return c
}

// writePayloads writes dir/CLASS/NAME for each kind of generated data and each
// file of a module, and returns how many.
func writePayloads(ctx context.Context, dir string, bytes int, seed uint64) (int, error) {
	var files []corpus.File
	for _, kind := range append([]string{"entropy:0.2", "entropy:0.5", "entropy:0.8"}, corpus.Kinds...) {
		f, err := corpus.Generate(kind, bytes, seed)
		if err != nil {
			return 0, err
		}
		f.Name = "generated-" + strings.ReplaceAll(kind, ":", "-")
		if strings.HasPrefix(kind, "entropy") {
			f.Class = "entropy"
		}
		files = append(files, f)
	}
	files = append(files, corpus.FromModules(ctx)...)
	for _, f := range files {
		name := filepath.Join(dir, f.Class, strings.NewReplacer("/", "-", " ", "-").Replace(f.Name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return 0, err
		}
		if err := os.WriteFile(name, f.Bytes, 0o644); err != nil {
			return 0, err
		}
	}
	return len(files), nil
}
