package folder

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/portask/portask/loadgen/evidence"
	"github.com/portask/portask/loadgen/report/html"
	"github.com/portask/portask/loadgen/search"
)

// Search is the result of a search, in a directory of its own beside a Page.
const Search = "search.json"

// searchDocument is search.json.
type searchDocument struct {
	*search.Result
	Environment *evidence.Environment `json:"environment,omitempty"`
}

// searchBytes bounds a search.json: 10,000 probes.
const searchBytes = 16 << 20

// FinishSearch writes a search and its page into dir, which is made. One that is
// there is not overwritten.
func FinishSearch(dir string, r *search.Result, e *evidence.Environment) error {
	if _, err := os.Stat(filepath.Join(dir, Search)); err == nil {
		return fmt.Errorf("%s holds a search already; it is not overwritten", dir)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	err := write(dir, Search, func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(searchDocument{r, e})
	})
	if err != nil {
		return err
	}
	return write(dir, Page, func(w io.Writer) error { return html.WriteSearch(w, r, e) })
}

// RenderSearch makes the page of the search in dir again, into out. found is
// false if dir holds none.
func RenderSearch(dir, out string) (r *search.Result, found bool, err error) {
	f, err := os.Open(filepath.Join(dir, Search))
	if err != nil {
		return nil, false, nil // dir is not one of a search
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, searchBytes+1))
	if err != nil {
		return nil, true, err
	}
	d := searchDocument{Result: &search.Result{}}
	switch err := json.Unmarshal(b, &d); {
	case len(b) > searchBytes:
		return nil, true, fmt.Errorf("%s: more than %d bytes", f.Name(), searchBytes)
	case err != nil:
		return nil, true, fmt.Errorf("%s: %w", f.Name(), err)
	case d.Schema != search.Schema:
		return nil, true, fmt.Errorf("%s: schema %d, this program reads %d", f.Name(), d.Schema, search.Schema)
	}
	if err := os.MkdirAll(out, 0o777); err != nil {
		return nil, true, err
	}
	return d.Result, true, write(out, Page, func(w io.Writer) error { return html.WriteSearch(w, d.Result, d.Environment) })
}
