package disklog

import (
	"os"
	"path/filepath"
	"sync"

	"github.com/portask/portask/broker/internal/vfs"
)

const durableName = "durable"

// durableFile holds the durable point of a log in two records. Its methods may
// be called concurrently.
type durableFile struct {
	f vfs.File

	mu     sync.Mutex
	last   record // newest; guarded by mu
	synced int    // slot of the newest synced record; guarded by mu
	buf    [recordBytes]byte
}

// write stores r with the next sequence; with sync it is durable on return.
//
// A record that is not synced goes to the slot that does not hold the last
// synced one, again and again, so that one good record is on the device
// whatever happens to those that are being written.
func (d *durableFile) write(r record, sync bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	r.sequence = d.last.sequence + 1
	// The log start moves by Retain and the durable end by Sync, at the same
	// time: neither may take the other's back.
	r.start = max(r.start, d.last.start)
	if d.last.durable > r.durable {
		r.durable, r.segBase, r.segSeed, r.pos = d.last.durable, d.last.segBase, d.last.segSeed, d.last.pos
	}
	r.put(d.buf[:])
	slot := 1 - d.synced
	if _, err := d.f.WriteAt(d.buf[:], int64(slot)*recordStride); err != nil {
		return err
	}
	if sync {
		if err := d.f.Sync(); err != nil {
			return err
		}
		d.synced = slot
	}
	d.last = r
	return nil
}

// loadDurable opens the durable file of a log's directory and returns what is
// wrong with it. Without a readable record d.last is zero, epoch 0. d is nil if
// there is no file.
func loadDurable(fs vfs.FS, dir string, flag int) (d *durableFile, problems []Problem, err error) {
	f, err := fs.OpenFile(filepath.Join(dir, durableName), flag, 0)
	if os.IsNotExist(err) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	d = &durableFile{f: f}
	problems, err = d.load()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return d, problems, nil
}

func (d *durableFile) load() (problems []Problem, err error) {
	size, err := d.f.Size()
	if err != nil {
		return nil, err
	}
	good := 0
	for slot := range 2 {
		pos := int64(slot) * recordStride
		var r record
		if pos+recordBytes > size {
			err = corrupted("durable record", "the file has %d bytes", size)
		} else if err = readAt(d.f, d.buf[:], pos); err == nil {
			err = r.parse(d.buf[:])
		}
		switch {
		case damage(err):
			problems = append(problems, Problem{Class: DurableRecord, File: durableName, Pos: pos, Len: recordBytes, Detail: err.Error()})
		case err != nil:
			return nil, err
		default:
			if good++; good == 1 || r.sequence > d.last.sequence {
				d.last, d.synced = r, slot
			}
		}
	}
	if good == 0 {
		problems = []Problem{{Class: DurableFile, File: durableName, Len: size, Detail: "no record checks"}}
	}
	return problems, nil
}

// createDurable makes a durable file with r in both places, so that writing it
// later needs no space.
func createDurable(fs vfs.FS, dir string, r record) (*durableFile, error) {
	name := filepath.Join(dir, durableName)
	d := &durableFile{last: r}
	err := replaceFile(fs, name, func(f vfs.File) error {
		for slot := range 2 {
			d.last.sequence++
			d.last.put(d.buf[:])
			if _, err := f.WriteAt(d.buf[:], int64(slot)*recordStride); err != nil {
				return err
			}
			d.synced = slot
		}
		return nil
	})
	if err == nil {
		d.f, err = fs.OpenFile(name, os.O_RDWR, 0)
	}
	return d, err
}

// replaceFile puts a file under name as one step: a temporary file is written
// by fill, synced, renamed, and the directory synced.
func replaceFile(fs vfs.FS, name string, fill func(f vfs.File) error) error {
	temp := name + tempSuffix
	f, err := fs.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	err = fill(f)
	if err == nil {
		err = f.SyncAll()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fs.Rename(temp, name)
	}
	if err != nil {
		_ = fs.Remove(temp) // deleted at the next open if not now
		return err
	}
	return fs.SyncDir(filepath.Dir(name))
}

// newest returns the record that was written last.
func (d *durableFile) newest() record {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}
