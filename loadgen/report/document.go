package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/portask/portask/loadgen/evidence"
	"github.com/portask/portask/loadgen/load"
)

// Document is all that is kept of a run, as result.json has it: the result, and
// beside it what else is known. docs/results.md describes every field.
type Document struct {
	*load.Result
	// Labels are the user's configuration lines for the benchmark format: role,
	// round, ...
	Labels      map[string]string     `json:"labels,omitempty"`
	Environment *evidence.Environment `json:"environment,omitempty"`
	Evidence    *evidence.Evidence    `json:"evidence,omitempty"`
}

// documentBytes bounds a result.json: 1800 intervals take 3 MiB.
const documentBytes = 64 << 20

// ErrSchema: the document is of a version that this program does not read.
var ErrSchema = errors.New("result of another schema version")

// ReadJSON reads what WriteJSON wrote, and what JSON did.
//
// Errors: ErrSchema; too long; not such a document.
func ReadJSON(r io.Reader) (*Document, error) {
	b, err := io.ReadAll(io.LimitReader(r, documentBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > documentBytes {
		return nil, fmt.Errorf("result: more than %d bytes", documentBytes)
	}
	var head struct {
		Schema *int `json:"schema"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, fmt.Errorf("result: %w", err)
	}
	switch {
	case head.Schema == nil:
		return nil, errors.New("result: no schema: this is no result of loadgen")
	case *head.Schema != load.Schema:
		return nil, fmt.Errorf("%w: %d, this program reads %d", ErrSchema, *head.Schema, load.Schema)
	}
	if err := complete(b); err != nil {
		return nil, err
	}
	d := &Document{Result: &load.Result{}}
	if err := json.Unmarshal(b, d); err != nil {
		return nil, fmt.Errorf("result: %w", err)
	}
	return d, nil
}

// required are the fields that every result has, whatever came of the run.
var required = []string{"run_id", "began", "scenario", "scenario_hash", "resolved", "system", "durability", "topics", "loop", "ack", "visibility", "payload", "counts", "wire", "generator", "complete"}

// complete is an error that names the required fields that are not there.
func complete(b []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return fmt.Errorf("result: %w", err)
	}
	var missing []string
	for _, name := range required {
		if x, ok := fields[name]; !ok || string(x) == "null" {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("result: no %s", strings.Join(missing, ", "))
	}
	return nil
}

// WriteJSON writes the document, indented.
func WriteJSON(w io.Writer, d *Document) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(d)
}

// Shown are the measurements, also those of an invalid run, and whether they
// are a result. Whoever shows rejected ones says so beside them.
func (d *Document) Shown() (m *load.Measured, result bool) {
	if d.Measured != nil {
		return d.Measured, true
	}
	return d.Rejected, false
}
