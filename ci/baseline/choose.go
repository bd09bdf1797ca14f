package baseline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// ErrNoBase: there is nothing to compare with, as for a repository's first
// commit.
var ErrNoBase = errors.New("no base: the head has no parent, and no revision is accepted")

// ErrSame: base and head are the same commit. A comparison would pass whatever
// the head is.
var ErrSame = errors.New("base and head are the same commit")

// Choose finds the base of a head, a revision as git knows it: the accepted
// revision if it is an ancestor, else the first parent. The second result says
// which. accepted may be nil.
func Choose(ctx context.Context, repo, head string, accepted *File) (base, origin string, err error) {
	commit, err := git(ctx, repo, "rev-parse", "--verify", "--quiet", "--end-of-options", head+"^{commit}")
	if err != nil {
		return "", "", fmt.Errorf("head %q: %w", head, err)
	}
	if accepted != nil && accepted.Revision != commit && Ancestor(ctx, repo, accepted.Revision, commit) {
		return accepted.Revision, "baseline", nil
	}
	parent, err := git(ctx, repo, "rev-parse", "--verify", "--quiet", "--end-of-options", commit+"^1")
	if ctx.Err() != nil {
		return "", "", ctx.Err()
	}
	if err != nil {
		return "", "", ErrNoBase
	}
	return parent, "first parent", nil
}

// Ancestor tells whether a commit is an ancestor of another, or the same. One
// that the repository does not have is none.
func Ancestor(ctx context.Context, repo, commit, of string) bool {
	_, err := git(ctx, repo, "merge-base", "--is-ancestor", "--end-of-options", commit, of)
	return err == nil
}

// Messages are the commit messages from base, exclusive, to head, by commit,
// latest first. At most messagesMax.
func Messages(ctx context.Context, repo, base, head string) ([]Message, error) {
	out, err := git(ctx, repo, "log", fmt.Sprintf("--max-count=%d", messagesMax), "--format=%H%n%B%x00", "--end-of-options", base+".."+head)
	if err != nil {
		return nil, err
	}
	var all []Message
	for text := range strings.SplitSeq(out, "\x00") {
		commit, body, ok := strings.Cut(strings.TrimLeft(text, "\n"), "\n")
		if ok {
			all = append(all, Message{Commit: commit, Text: body})
		}
	}
	return all, nil
}

// messagesMax is how far back a waiver is looked for.
const messagesMax = 1000

// Message of a commit.
type Message struct{ Commit, Text string }

// At reads the baseline as it is in a revision; nil if it has none.
func At(ctx context.Context, repo, revision string) (*File, error) {
	text, err := git(ctx, repo, "show", "--end-of-options", revision+":"+Path)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, nil // not in that revision
	}
	f, err := Read(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s of %.10s: %w", Path, revision, err)
	}
	return f, nil
}

func git(ctx context.Context, repo string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", repo}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}
