//go:build !unix

package live

import "os"

// Terminal: only systems of the Unix family are asked.
func Terminal(*os.File) func() (columns, rows int) { return nil }
