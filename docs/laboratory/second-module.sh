#!/usr/bin/env bash
# second-module.sh DIR: makes in DIR, which must not exist, a git repository that has nothing to do with Portask: a Go
# module with two packages, three benchmarks and two commits. The second commit adds a tenth to the instructions of
# one of them and changes a comment beside the others. Used by docs/laboratory.md.
set -euo pipefail
dir=${1:?usage: second-module.sh DIR}
mkdir "$dir"
cd "$dir"
git init -q -b main
git config user.name 'A. Writer'
git config user.email writer@example.com

mkdir tokens table
cat >go.mod <<'EOF'
module example.com/words

go 1.24
EOF
cat >tokens/tokens.go <<'EOF'
// Package tokens cuts text into words.
package tokens

// Count returns how many words text has, and the sum of their hashes.
func Count(text []byte) (words int, sum uint32) {
	begin := -1
	for i, c := range text {
		switch {
		case c != ' ' && begin < 0:
			begin = i
		case c == ' ' && begin >= 0:
			words++
			sum += hash(text[begin:i])
			begin = -1
		}
	}
	if begin >= 0 {
		words++
		sum += hash(text[begin:])
	}
	return words, sum
}

// hash is FNV-1a.
func hash(word []byte) uint32 {
	h := uint32(2166136261)
	for _, c := range word {
		h = (h ^ uint32(c)) * 16777619
	}
	return h
}
EOF
cat >tokens/tokens_test.go <<'EOF'
package tokens

import (
	"strings"
	"testing"
)

func BenchmarkCount(b *testing.B) {
	text := []byte(strings.Repeat("the words of a text that is neither short nor long ", 80))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		Count(text)
	}
}
EOF
cat >table/table.go <<'EOF'
// Package table counts words.
package table

// Table counts strings. It is not safe for concurrent use.
type Table struct{ counts map[string]int }

// Add counts s once more.
func (t *Table) Add(s string) {
	if t.counts == nil {
		t.counts = make(map[string]int)
	}
	t.counts[s]++
}

// Most returns the string that was added most often; of several, the least.
func (t *Table) Most() (s string, n int) {
	for word, k := range t.counts {
		if k > n || k == n && word < s {
			s, n = word, k
		}
	}
	return s, n
}
EOF
cat >table/table_test.go <<'EOF'
package table

import (
	"strconv"
	"testing"
)

func filled() *Table {
	t := new(Table)
	for i := range 2000 {
		t.Add("word" + strconv.Itoa(i%300))
	}
	return t
}

func BenchmarkAdd(b *testing.B) {
	t := filled()
	for b.Loop() {
		t.Add("word17")
	}
}

func BenchmarkMost(b *testing.B) {
	t := filled()
	for b.Loop() {
		t.Most()
	}
}
EOF
git add -A
git -c commit.gpgsign=false commit -q -m 'words: count them'

# The second commit: each byte goes through fold before it is hashed.
cat >tokens/fold.go <<'EOF'
package tokens

// fold is what hash sees of a byte.
func fold(c byte) uint32 {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return uint32(c)
}
EOF
sed -i 's/h = (h ^ uint32(c)) \* 16777619/h = (h ^ fold(c)) * 16777619/' tokens/tokens.go
sed -i 's/Package table counts words\./Package table counts how often words come./' table/table.go
git add -A
git -c commit.gpgsign=false commit -q -m 'tokens: words that differ in case count as one'
git log --oneline
