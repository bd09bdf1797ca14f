package evidence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// admin asks a broker's admin listener. Safe for concurrent use.
type admin struct {
	mu     sync.Mutex
	base   string // guarded by mu
	client *http.Client
}

func (a *admin) at() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.base
}

// move asks at another address from now on; an empty one is no news.
func (a *admin) move(addr string) error {
	if addr == "" {
		return nil
	}
	base, err := adminBase(addr)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.base = base
	return nil
}

// newAdmin takes host:port or an http(s) URL.
func newAdmin(addr string) (*admin, error) {
	base, err := adminBase(addr)
	if err != nil {
		return nil, err
	}
	return &admin{
		base: base,
		client: &http.Client{
			Transport: &http.Transport{MaxConnsPerHost: 8, DisableCompression: true}, // no proxy: the target is near
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return errors.New("the admin listener answered with a redirect")
			},
		},
	}, nil
}

func adminBase(addr string) (string, error) {
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.User != nil {
		return "", fmt.Errorf("admin address %q: want host:port or http://host:port", addr)
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}

// busyError: another profile is being recorded there.
type busyError struct{ text string }

func (e *busyError) Error() string { return e.text }

// get opens an answer; the caller closes it.
func (a *admin) get(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.at()+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := a.client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(res.Body, 512))
	text := fmt.Sprintf("GET %s: %s: %s", path, res.Status, strings.Join(strings.Fields(string(b)), " "))
	if res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusServiceUnavailable {
		return nil, &busyError{text}
	}
	return nil, errors.New(text)
}

// bytes reads a whole answer of at most most bytes.
func (a *admin) bytes(ctx context.Context, path string, most int64, timeout time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	body, err := a.get(ctx, path)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("GET %s: more than %d bytes", path, most)
	}
	return b, err
}

// statsTimeout is shorter than the time between samples.
const statsTimeout = 900 * time.Millisecond

func (a *admin) stats(ctx context.Context) (*stats, []byte, error) {
	b, err := a.bytes(ctx, "/stats", statsBytes, statsTimeout)
	if err != nil {
		return nil, nil, err
	}
	s, err := parseStats(b)
	if err != nil {
		return nil, nil, fmt.Errorf("GET /stats: %w", err)
	}
	return s, b, nil
}

// save writes an answer to a file, whole or not at all.
func (a *admin) save(ctx context.Context, path, file string, most int64, timeout time.Duration) (n int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	body, err := a.get(ctx, path)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	f, err := os.CreateTemp(filepath.Dir(file), ".part-*")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	n, err = io.Copy(f, io.LimitReader(body, most+1))
	if err == nil && n > most {
		err = fmt.Errorf("GET %s: more than %d bytes", path, most)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	if err = os.Chmod(f.Name(), 0o644); err != nil {
		return 0, err
	}
	return n, os.Rename(f.Name(), file)
}
