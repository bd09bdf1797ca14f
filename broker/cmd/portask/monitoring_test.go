package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/message"
)

// admin is a client of a process's admin listener.
type admin struct {
	t    *testing.T
	addr string
}

// adminOf reads the address that the process wrote.
func adminOf(t *testing.T, file string) admin {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return admin{t, strings.TrimSpace(string(b))}
}

func (a admin) get(path string) (int, string) {
	a.t.Helper()
	c := http.Client{Timeout: patience}
	defer c.CloseIdleConnections()
	res, err := c.Get("http://" + a.addr + path)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// Every shipped configuration has an admin listener that shows the broker.
func TestShippedConfigurationsAreMonitored(t *testing.T) {
	t.Parallel()
	for profile, name := range shipped {
		t.Run(profile, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, "admin")
			p := startProcess(t, "--config", filepath.Join(root, filepath.FromSlash(name)), "--data", filepath.Join(dir, "data"),
				"--listen", "127.0.0.1:0", "--admin-addr-file", file)
			a := adminOf(t, file)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			c, err := client.Dial(ctx, p.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Admin().CreateTopic(ctx, client.TopicConfig{Name: "seen", Partitions: 1}); err != nil {
				t.Fatal(err)
			}
			out, err := c.Producer(ctx, "seen")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := out.Send(ctx, &message.Message{Value: []byte("x")}); err != nil {
				t.Fatal(err)
			}
			if status, b := a.get("/readyz"); status != 200 {
				t.Errorf("/readyz: %d %s", status, b)
			}
			wants := []string{`portask_topic_messages_stored_total{topic="seen"} 1`, `portask_produce_latency_seconds_count{ack="durable"} 1`,
				"portask_connections 1", "go_goroutines", "process_resident_memory_bytes"}
			missing := func(b string) (all []string) {
				for _, want := range wants {
					if !strings.Contains(b, "\n"+want) {
						all = append(all, want)
					}
				}
				return all
			}
			_, b := a.get("/metrics")
			for end := time.Now().Add(patience); len(missing(b)) > 0 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				_, b = a.get("/metrics") // what event loops count shows within 100 ms
			}
			if m := missing(b); len(m) > 0 {
				t.Errorf("/metrics has no %v", m)
			}
			if _, b := a.get("/stats"); !strings.Contains(b, fmt.Sprintf("%q", p.addr)) {
				t.Errorf("/stats does not name the broker's address, %s: %s", p.addr, b)
			}
			flight := 404
			if profile == "dev" {
				flight = 200
			}
			if status, b := a.get("/debug/flight"); status != flight {
				t.Errorf("/debug/flight: %d %.200s", status, b)
			}
			p.cmd.Process.Signal(syscall.SIGTERM)
			p.until("stopped")
			p.rest.Wait()
			if err := p.cmd.Wait(); err != nil {
				t.Errorf("the broker ended with %v", err)
			}
			if _, err := http.Get("http://" + a.addr + "/healthz"); err == nil {
				t.Error("the admin listener outlives the broker")
			}
		})
	}
}

// The settings of the admin listener: off, addresses, clients, and what a reload
// changes.
func TestAdminListenerSettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, conf := filepath.Join(dir, "admin"), filepath.Join(dir, "broker.yaml")
	off := startProcess(t, "--engine", "memlog", "--listen", "127.0.0.1:0", "--admin-listen", "off", "--admin-addr-file", file)
	off.until("msg=serving")
	if _, err := os.Stat(file); err == nil || strings.Contains(off.all.String(), "admin listener") {
		t.Error("an admin listener that is off has an address")
	}

	const text = "version: 1\nmonitoring:\n  listen: 127.0.0.1:0\n  address_file: %s\n  interval: %s\n  mutex_profile: %s\nsecurity:\n  admin_clients: 127.0.0.0/8\n  admin_profiling: false\n"
	replace(t, conf, fmt.Sprintf(text, file, "1m", "off"))
	p := startProcess(t, "--config", conf, "--data", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0")
	a := adminOf(t, file)
	if status, _ := a.get("/debug/pprof/heap"); status != 404 {
		t.Errorf("profiles that are off: %d", status)
	}
	if status, _ := a.get("/healthz"); status != 200 {
		t.Errorf("/healthz: %d", status)
	}
	replace(t, conf, fmt.Sprintf(text, file, "100ms", "7"))
	p.until("key=monitoring.mutex_profile")
	p.until("configuration reloaded")
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if _, b := a.get("/stats"); strings.Contains(b, `"interval_ns":1`) && !strings.Contains(b, `"interval_ns":0`) {
			break // 100 ms and a bit; it was none before
		}
		if time.Now().After(end) {
			t.Fatal("the new interval is not in force")
		}
	}

	// What must not start does not, and says why.
	for flag, want := range map[string]string{"--admin-listen=0.0.0.0:0": "admin_exposed", "--admin-listen=here": "monitoring.listen"} {
		var out strings.Builder
		cmd := newServe(&globals{})
		cmd.SetArgs([]string{flag, "--listen=127.0.0.1:0", "--data=" + filepath.Join(dir, "none")})
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", flag, err)
		}
	}
}
