package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/config"
	"github.com/portask/portask/broker/config/document"
)

// Each profile in each format: what is written is read back the same, and is
// what the schema says, by a validator and decoders that know nothing of Portask.
func TestProfilesInEveryFormat(t *testing.T) {
	raw, err := plainOptions().schema().JSONSchema("Portask")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("portask.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("portask.json")
	if err != nil {
		t.Fatal(err)
	}
	decode := map[document.Format]func([]byte, any) error{document.YAML: yaml.Unmarshal, document.JSON: json.Unmarshal, document.TOML: toml.Unmarshal}
	for profile := range shipped {
		var first *config.Snapshot
		for f, decode := range decode {
			name := profile + "." + f.String()
			write, err := writerOf(profile, f)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), name)
			if err := create(file, write); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			snap, err := plainOptions().schema().Load(config.Sources{File: file})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if first == nil {
				first = snap
			}
			if ch := config.Diff(first, snap); len(ch) > 0 {
				t.Errorf("%s differs from the other formats: %+v", name, ch)
			}
			var v any
			if err := decode(text, &v); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			b, err := json.Marshal(v) // the validator knows the types of JSON
			if err != nil {
				t.Fatal(err)
			}
			if v, err = jsonschema.UnmarshalJSON(bytes.NewReader(b)); err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(v); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			// A setting that is not there is refused by both.
			wrong := strings.Replace(string(b), `"version":`, `"verison":1,"version":`, 1)
			if v, err = jsonschema.UnmarshalJSON(strings.NewReader(wrong)); err != nil || schema.Validate(v) == nil {
				t.Errorf("%s: the schema takes an unknown key: %v", name, err)
			}
		}
	}
}

// swap replaces what file, a link into a directory, leads to, as Kubernetes does
// with a ConfigMap: file -> ..data/file, ..data -> a directory that is swapped.
func swap(t *testing.T, file, version, text string) {
	t.Helper()
	dir := filepath.Dir(file)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Join(dir, version), 0o755))
	must(os.WriteFile(filepath.Join(dir, version, filepath.Base(file)), []byte(text), 0o644))
	must(os.Symlink(version, filepath.Join(dir, "..tmp")))
	must(os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
	if _, err := os.Lstat(file); os.IsNotExist(err) {
		must(os.Symlink(filepath.Join("..data", filepath.Base(file)), file))
	}
}

// A running broker with a file of each format, variables and flags: the later
// layer wins, at the start and at every reload, and each way to change a file is
// seen: renamed into place, written in place, swapped behind a link.
func TestReloadInEveryFormat(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no SIGTERM to send")
	}
	t.Setenv("PORTASK_TOPICS_SEGMENT", "8MiB")
	t.Setenv("PORTASK_SERIALIZATION_ACCEPT", "raw,json")
	for _, tt := range []struct {
		name          string
		first, second string
		change        func(t *testing.T, file, version, text string)
	}{
		{
			"broker.yaml",
			"version: 1\ntopics:\n  partitions: 2\n  segment: 32MiB\n  retention: 1h\n",
			"version: 1\ntopics:\n  partitions: 3\n  segment: 16MiB\n  retention: 2h\nnetwork:\n  max_connections: 99\n",
			func(t *testing.T, file, _, text string) { replace(t, file, text) },
		},
		{
			"broker.json",
			`{"version": 1, "topics": {"partitions": 2, "segment": "32MiB", "retention": "1h"}}`,
			`{"version": 1, "topics": {"partitions": 3, "segment": "16MiB", "retention": "2h"}, "network": {"max_connections": 99}}`,
			func(t *testing.T, file, _, text string) {
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			},
		},
		{
			"broker.toml",
			"version = 1\n[topics]\npartitions = 2\nsegment = \"32MiB\"\nretention = \"1h\"\n",
			"version = 1\n[topics]\npartitions = 3\nsegment = \"16MiB\"\nretention = \"2h\"\n[network]\nmax_connections = 99\n",
			swap,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, tt.name)
			tt.change(t, file, "..1", tt.first)
			p := startProcess(t, "--config", file, "--listen", "127.0.0.1:0", "--engine", "memlog", "--default-retention", "30m")
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			c, err := client.Dial(ctx, p.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			topic := func(name string, partitions int) {
				t.Helper()
				x, err := c.Admin().CreateTopic(ctx, client.TopicConfig{Name: name})
				if err != nil || len(x.Partitions) != partitions || x.SegmentBytes != 8<<20 || x.Retention.Minutes() != 30 {
					t.Errorf("%s: %d partitions, want %d, segment %d by the variable, retention %v by the flag, %v",
						name, len(x.Partitions), partitions, x.SegmentBytes, x.Retention, err)
				}
			}
			topic("before", 2)
			tt.change(t, file, "..2", tt.second)
			p.until("key=topics.partitions from=2 to=3 origin=" + file)
			p.until(`msg="configuration reloaded" why="the file has changed" file=` + file + " changed=1 need_restart=1")
			topic("after", 3)
			tt.change(t, file, "..3", strings.Replace(tt.second, "3", "none", 1))
			p.until(`msg="configuration refused, the old one stays"`)
			p.until(file + ":")
			topic("still", 3)
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			p.until("stopped")
		})
	}
}
