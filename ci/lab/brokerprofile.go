package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// profileBytesMax bounds one profile that a broker answers with.
const profileBytesMax = 32 << 20

// profileSettings make locks and waits show; they cost the broker a little.
const profileSettings = "version: 1\nmonitoring:\n  mutex_profile: 100\n  block_profile: 100us\n"

// ProfileBroker saturates a broker with the lean clients, as Round does, and
// returns its profiles by kind: cpu of the given length (whole seconds) from
// the measured phase, then heap, mutex, block and goroutine, as the admin
// listener answers them.
func (l *Lab) ProfileBroker(ctx context.Context, v Variant, o Load, length time.Duration) (map[string][]byte, Round, error) {
	o.Measured = length + 2*time.Second
	o.setDefaults()
	r := Round{Variant: v}
	if v.Name != "portask" {
		return nil, r, fmt.Errorf("variant %q has no admin listener", v.Name)
	}
	dir, remove, err := l.scratch()
	if err != nil {
		return nil, r, err
	}
	defer remove()
	settings := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(settings, []byte(profileSettings), 0o666); err != nil {
		return nil, r, err
	}
	addrFile, adminFile := filepath.Join(dir, "addr"), filepath.Join(dir, "admin")
	s, err := startServer(ctx, "portask", l.Portask, []string{"serve", "--config", settings, "--data", filepath.Join(dir, "data"),
		"--listen", "127.0.0.1:0", "--addr-file", addrFile, "--admin-listen", "127.0.0.1:0", "--admin-addr-file", adminFile,
		"--engine", "disklog", "--log-level", "warn"}, addrFile, io.Discard)
	if err != nil {
		return nil, r, err
	}
	defer s.kill()
	if err := l.createTopic(ctx, s.addr, v.Visibility, "--retention-bytes", strconv.Itoa(256<<20)); err != nil {
		return nil, r, err
	}
	admin, err := os.ReadFile(adminFile)
	if err != nil {
		return nil, r, err
	}
	p, err := l.clients(ctx, v, s.addr, dir, o)
	if err != nil {
		return nil, r, err
	}
	defer p.close()
	got := map[string][]byte{}
	ask := func(kind, path string) error {
		b, err := fetch(ctx, "http://"+strings.TrimSpace(string(admin))+path)
		if err != nil {
			return fmt.Errorf("profile %s: %w", kind, err)
		}
		got[kind] = b
		return nil
	}
	if _, _, err := p.run(ctx, strconv.FormatInt(o.WarmBytes/int64(o.BatchMessages*o.MessageBytes)+1, 10)); err != nil {
		return nil, r, fmt.Errorf("%w; the server's last words: %s", err, s.stderr)
	}
	cpu := make(chan error, 1)
	go func() {
		cpu <- ask("cpu", "/debug/pprof/profile?seconds="+strconv.Itoa(int(length/time.Second)))
	}()
	o.WarmBytes, o.CountSyscalls = 1, false
	err = l.measure(ctx, &r, s, p, o)
	if err := errors.Join(err, <-cpu); err != nil {
		return nil, r, err
	}
	for _, kind := range []string{"heap", "mutex", "block", "goroutine"} {
		if err := ask(kind, "/debug/pprof/"+kind); err != nil {
			return nil, r, err
		}
	}
	p.close()
	return got, r, s.signal(syscall.SIGTERM, stopTimeout)
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, profileBytesMax+1))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: %.200s", resp.Status, b)
	case len(b) > profileBytesMax:
		return nil, fmt.Errorf("more than %d bytes", profileBytesMax)
	}
	return b, nil
}
