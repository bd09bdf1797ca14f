package disklog

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/storage"
)

// TestRepairCatalogue loses the catalogue in several ways: Verify calls it
// damage, and the copy has one.
func TestRepairCatalogue(t *testing.T) {
	d := newDamageLog(t)
	file := filepath.Join("data", metaDir, "catalogue")
	stored, err := readMeta(d.fs, file)
	check(t, err)
	whole := appendMeta(nil, stored)
	flip := func(at int) []byte {
		b := bytes.Clone(whole)
		b[at] ^= 4
		return b
	}
	made := []byte("made anew")
	for name, c := range map[string]struct {
		content []byte // nil removes it
		left    []byte // what Rebuild gets
		mended  bool
	}{
		"bit of the blob":       {content: flip(metaBytes + 70), mended: true},
		"bit of the length":     {content: flip(9), mended: true},
		"bit of a checksum":     {content: flip(17), mended: true},
		"bit of the magic":      {content: flip(0), mended: true},
		"missing":               {},
		"empty":                 {content: []byte{}},
		"two bytes of the blob": {content: append(flip(metaBytes + 9)[:len(whole)-1], whole[len(whole)-1]^1), left: append(flip(metaBytes + 9)[metaBytes:len(whole)-1], whole[len(whole)-1]^1)},
		"cut short":             {content: whole[:len(whole)-3], left: stored[:len(stored)-3]},
		"checks, but no use":    {content: appendMeta(nil, []byte("nonsense")), left: []byte("nonsense")},
	} {
		t.Run(name, func(t *testing.T) {
			fs := d.fs.Clone(vfs.CrashAll, 0)
			if c.content == nil {
				check(t, fs.Remove(file))
			} else {
				check(t, writeFile(fs, file, c.content))
			}
			calls := 0
			cat := &Catalogue{
				Name: "catalogue",
				Check: func(blob []byte) error {
					if bytes.Equal(blob, stored) || bytes.Equal(blob, made) {
						return nil
					}
					return fault.New(fault.Corrupted, "check")
				},
				Rebuild: func(left []byte, logs []storage.PartitionID) ([]byte, []string, error) {
					calls++
					if !bytes.Equal(left, c.left) || len(logs) != 1 || logs[0] != testID {
						t.Errorf("Rebuild(%q, %v)", left, logs)
					}
					return made, []string{"a note"}, nil
				},
			}
			v, err := Verify(fs, "data", nil, cat)
			check(t, err)
			if !v.Damaged() || !names(v.Problems, file, MetaFile) {
				t.Errorf("Verify found %v", v.Problems)
			}
			r, err := Repair(fs, "data", "copy", cat, nil)
			check(t, err)
			if !names(r.Problems, file, MetaFile) || r.Batches != len(d.o.batches) || calls == 0 != c.mended {
				t.Errorf("repair: %+v, %d calls", r, calls)
			}
			want := made
			if c.mended {
				want = stored
			}
			if got, err := readMeta(fs, filepath.Join("copy", metaDir, "catalogue")); err != nil || !bytes.Equal(got, want) {
				t.Errorf("the copy has %q, %v", got, err)
			}
			if v, err := Verify(fs, "copy", nil, cat); err != nil || v.Damaged() {
				t.Errorf("the copy: %v, %v", v.Problems, err)
			}
		})
	}
}
