// Package ledger remembers which benchmarks a gate left open, so that the next
// gate measures them first and the third commit running fails. It is a file
// that only grows, one line of JSON a gate; a gate that settled everything
// writes a line only if the last one named something.
//
// Commits count, not gates: of several gates of a commit the latest speaks.
package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/portask/portask/ci/internal/jsonl"
)

// Path of the ledger below a repository.
const Path = "benchdata/inconclusive.jsonl"

// Version of a line.
const Version = 1

// Limits of what Read takes.
const (
	lineMax  = 64 << 10
	linesMax = 100_000
	openMax  = 1000
)

// Line is one gate.
type Line struct {
	Version int       `json:"version"`
	When    time.Time `json:"when"`
	Commit  string    `json:"commit"`
	Base    string    `json:"base"`
	Open    []string  `json:"open"`
}

// ReadFile returns the lines in order; none if there is no such file. Errors
// name file and line.
func ReadFile(name string) ([]Line, error) {
	var lines []Line
	err := jsonl.ReadFile(name, lineMax, linesMax, parseInto(&lines))
	return lines, err
}

// Read parses lines. Errors name the line.
func Read(r io.Reader) ([]Line, error) {
	var lines []Line
	err := jsonl.Read(r, lineMax, linesMax, parseInto(&lines))
	return lines, err
}

func parseInto(lines *[]Line) func([]byte) error {
	return func(b []byte) error {
		var l Line
		if err := json.Unmarshal(b, &l); err != nil {
			return err
		}
		switch {
		case l.Version != Version:
			return fmt.Errorf("version %d, want %d", l.Version, Version)
		case l.Commit == "":
			return errors.New("no commit")
		case len(l.Open) > openMax:
			return fmt.Errorf("%d names, at most %d", len(l.Open), openMax)
		}
		*lines = append(*lines, l)
		return nil
	}
}

// Running says for how many commits running, up to the latest before head,
// each benchmark was left open. Lines of commits that are not related to head
// (other branches) are passed over; related may be nil.
func Running(lines []Line, head string, related func(commit string) bool) map[string]int {
	seen := map[string]bool{head: true}
	var commits []Line // latest first
	for _, l := range slices.Backward(lines) {
		if seen[l.Commit] || related != nil && !related(l.Commit) {
			continue
		}
		seen[l.Commit] = true
		commits = append(commits, l)
	}
	running := make(map[string]int)
	for i, l := range commits {
		if len(l.Open) == 0 {
			break
		}
		for _, name := range l.Open {
			if running[name] == i {
				running[name] = i + 1
			}
		}
	}
	return running
}

// Append adds the line of a gate, unless neither it nor the last one names
// anything. The file is made with its directory if need be.
func Append(name string, l Line) error {
	lines, err := ReadFile(name)
	if err != nil {
		return err
	}
	if len(l.Open) == 0 && (len(lines) == 0 || len(lines[len(lines)-1].Open) == 0) {
		return nil
	}
	l.Version = Version
	if l.Open == nil {
		l.Open = []string{}
	}
	return jsonl.Append(name, l)
}
