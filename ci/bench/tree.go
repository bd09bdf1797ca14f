package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/portask/portask/ci/verdict"
)

// gitTimeout bounds each call of git, which reads the local repository only.
const gitTimeout = 2 * time.Minute

// repository is a git work tree.
type repository struct{ root string }

func openRepository(ctx context.Context, dir string) (*repository, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	r := &repository{abs}
	top, err := r.git(ctx, nil, "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, err
	}
	r.root = strings.TrimSpace(string(top))
	return r, nil
}

func (r *repository) git(ctx context.Context, env []string, args ...string) ([]byte, error) {
	// No optional locks: others may work in the same repository.
	return output(ctx, gitTimeout, 64<<20, r.root, cleanEnvironment(append([]string{"GIT_OPTIONAL_LOCKS=0", "LC_ALL=C"}, env...)...), "git", args...)
}

// Dirty tells whether files in the work tree around dir differ from the commit
// that is checked out, or lie beside it, tracked by nobody and not ignored. What
// is at or below the paths own, from the top of the work tree with slashes, does
// not count: who asks wrote it.
func Dirty(ctx context.Context, dir string, own []string) (bool, error) {
	r, err := openRepository(ctx, dir)
	if err != nil {
		return false, err
	}
	return r.dirty(ctx, own)
}

func (r *repository) dirty(ctx context.Context, own []string) (bool, error) {
	// Each untracked file by itself: of a directory that holds something of ours
	// and something else only the latter counts.
	args := []string{"status", "--porcelain", "--untracked-files=all", "--", ":(top)"}
	for _, name := range own {
		args = append(args, ":(top,exclude,literal)"+name)
	}
	status, err := r.git(ctx, nil, args...)
	return len(bytes.TrimSpace(status)) > 0, err
}

// resolve says which commit a revision is. For WorkingTree it is the one that
// is checked out, and whether files but own differ from it.
func (r *repository) resolve(ctx context.Context, name string, own []string) (verdict.Revision, error) {
	rev := verdict.Revision{Name: name}
	ask := name
	if name == WorkingTree {
		rev.Name, ask = "working tree", "HEAD"
	}
	commit, err := r.git(ctx, nil, "rev-parse", "--verify", "--quiet", "--end-of-options", ask+"^{commit}")
	if err != nil {
		return rev, fmt.Errorf("revision %q is not a commit of this repository: %w", name, err)
	}
	rev.Commit = strings.TrimSpace(string(commit))
	subject, err := r.git(ctx, nil, "log", "-1", "--format=%s", rev.Commit)
	if err != nil {
		return rev, err
	}
	rev.Subject = strings.TrimSpace(string(subject))
	if name == WorkingTree {
		if rev.Dirty, err = r.dirty(ctx, own); err != nil {
			return rev, err
		}
	}
	return rev, nil
}

// checkout writes the files of a revision into dir, which must not exist. It
// goes through an index of its own, so that neither the repository's index nor
// its list of work trees knows of it, and nothing is left there whatever ends
// this process. Submodules stay empty directories.
func (r *repository) checkout(ctx context.Context, rev verdict.Revision, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if rev.Name == "working tree" {
		return r.copyWorkingTree(ctx, dir)
	}
	index := dir + ".index"
	defer os.Remove(index)
	env := []string{"GIT_INDEX_FILE=" + index}
	if _, err := r.git(ctx, env, "read-tree", rev.Commit); err != nil {
		return err
	}
	_, err := r.git(ctx, env, "checkout-index", "--all", "--quiet", "--prefix="+dir+string(filepath.Separator))
	return err
}

// copyWorkingTree copies what git tracks or would track. A copy, because
// somebody may go on editing while the laboratory builds and measures.
func (r *repository) copyWorkingTree(ctx context.Context, dir string) error {
	list, err := r.git(ctx, nil, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(string(list), "\x00") {
		if name == "" {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		from, to := filepath.Join(r.root, name), filepath.Join(dir, name)
		info, err := os.Lstat(from)
		if err != nil {
			if os.IsNotExist(err) {
				continue // deleted, not yet committed
			}
			return err
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(from)
			if err != nil {
				return err
			}
			err = os.Symlink(target, to)
			if err != nil {
				return err
			}
		case info.Mode().IsRegular():
			if err := copyFile(from, to, info.Mode().Perm()); err != nil {
				return err
			}
		}
	}
	return nil
}

func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		if os.IsNotExist(err) {
			return nil
		}
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode|0o200)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// edit replaces files of a copy.
func edit(dir string, files map[string][]byte) error {
	for name, content := range files {
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(to, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
