// Package jsonfile decodes files of JSON that people may have edited: what is
// wrong is told with its line. A file of lines of JSON is package jsonl's.
package jsonfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Unmarshal is [json.Unmarshal] whose errors name the line, counted from 1, of
// what is no JSON or does not fit its field; the latter names the field too.
// The caller adds the file's name, and bounds data.
func Unmarshal(data []byte, v any) error {
	err := json.Unmarshal(data, v)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("line %d: %w", line(data, syntax.Offset), err)
	case errors.As(err, &kind):
		return fmt.Errorf("line %d: %w", line(data, kind.Offset), err)
	}
	return err
}

// line of the byte before offset, which is where the decoder had come to.
func line(data []byte, offset int64) int {
	end := min(max(offset-1, 0), int64(len(data)))
	return 1 + bytes.Count(data[:end], []byte{'\n'})
}
