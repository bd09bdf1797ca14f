package fault

import (
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "rewrite docs/errors.md")

// The page is generated. -update writes it.
func TestReferencePage(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "errors.md")
	if *update {
		if err := os.WriteFile(path, []byte(Reference()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(page) != Reference() {
		t.Error("docs/errors.md is not what the table says; run go test ./broker/fault -update")
	}
}

// Each code has a status that HTTP knows (499, of a client that gave up, is a
// custom of proxies) and that agrees with its flags, and an exit code with a
// meaning.
func TestColumns(t *testing.T) {
	for _, c := range Codes() {
		i := c.Info()
		if i.HTTP < 400 || i.HTTP > 599 || http.StatusText(i.HTTP) == "" && i.HTTP != 499 {
			t.Errorf("%v: HTTP %d", c, i.HTTP)
		}
		if i.Exit == ExitOK || i.Exit == ExitUsage || i.Exit.String() == "" {
			t.Errorf("%v: exit code %d %q", c, i.Exit, i.Exit)
		}
		switch i.HTTP { // what proxies and clients take for a reason to try again
		case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout, http.StatusInsufficientStorage, http.StatusRequestTimeout:
			if !i.Retryable {
				t.Errorf("%v: HTTP %d invites to a retry that cannot help", c, i.HTTP)
			}
		default:
			if i.Retryable {
				t.Errorf("%v can be retried, HTTP %d does not say so", c, i.HTTP)
			}
		}
	}
	if i := None.Info(); i.HTTP != 200 || i.Exit != ExitOK {
		t.Errorf("no failure: %+v", i)
	}
	if i := Code(999).Info(); i.HTTP != 500 || i.Exit != ExitFailure {
		t.Errorf("an unknown code: %+v", i)
	}
	if Exit(77).String() != "" {
		t.Error("exit code 77 has a meaning")
	}
	last := Exit(-1)
	for _, e := range Exits() {
		if e <= last {
			t.Errorf("exit code %d after %d", e, last)
		}
		last = e
	}
}
