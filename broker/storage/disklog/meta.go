package disklog

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/storage"
)

// Metadata file: header, then the blob.
//
//	 0       4   6   8               16      20      24
//	┌───────┬───┬───┬───────────────┬───────┬───────┬────────┬─   ─┐
//	│ PTSM  │ver│ 0 │    length     │crcblob│ crc   │  blob …      │
//	└───────┴───┴───┴───────────────┴───────┴───────┴────────┴─   ─┘

const damagedSuffix = ".damaged"

func appendMeta(dst, blob []byte) []byte {
	n := len(dst)
	dst = append(dst, make([]byte, metaBytes)...)
	b := dst[n:]
	le.PutUint32(b, magicMeta)
	le.PutUint16(b[4:], formatVersion)
	le.PutUint64(b[8:], uint64(len(blob)))
	le.PutUint32(b[16:], crc(blob))
	sealCRC(b)
	return append(dst, blob...)
}

// parseMeta returns the blob in a metadata file; it aliases b.
func parseMeta(b []byte) ([]byte, error) {
	const what = "metadata"
	if len(b) < metaBytes {
		return nil, corrupted(what, "the file has %d bytes", len(b))
	}
	head, blob := b[:metaBytes], b[metaBytes:]
	if err := checkBlock(head, magicMeta, what); err != nil {
		return nil, err
	}
	if le.Uint16(head[6:]) != 0 {
		return nil, corrupted(what, "reserved bits are set")
	}
	if n := le.Uint64(head[8:]); n != uint64(len(blob)) {
		return nil, corrupted(what, "%d bytes of %d", len(blob), n)
	}
	if got, want := crc(blob), le.Uint32(head[16:]); got != want {
		return nil, corrupted(what, "checksum is %08x, computed %08x", want, got)
	}
	return blob, nil
}

func (e *Engine) metaPath(name string) string { return filepath.Join(e.dir, metaDir, name) }

func readMeta(fsys vfs.FS, path string) ([]byte, error) {
	b, err := readFile(fsys, path, storage.MaxMetaBytes+metaBytes)
	if err != nil {
		return nil, err
	}
	return parseMeta(b)
}

// LoadMeta is described at storage.Engine.
func (e *Engine) LoadMeta(name string) ([]byte, error) {
	const op = "load metadata"
	if err := e.checkMeta(op, name); err != nil {
		return nil, err
	}
	e.metaMu.Lock()
	defer e.metaMu.Unlock()
	blob, err := readMeta(e.fs, e.metaPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, op).WithField("name").WithDetail("there is no %q", name)
	}
	if err != nil {
		return nil, failure(op+" "+e.metaPath(name), err)
	}
	e.metaOK[name] = true
	return blob, nil
}

func (e *Engine) checkMeta(op, name string) error {
	e.mu.Lock()
	closed := e.closed
	e.mu.Unlock()
	if closed {
		return errClosed(op)
	}
	return storage.CheckMetaName(name)
}

// StoreMeta is described at storage.Engine. A blob that does not check is not
// replaced but set aside under a name ending in ".damaged", where it stays.
// When the disk is full the reserve is given up for it.
func (e *Engine) StoreMeta(name string, blob []byte) error {
	const op = "store metadata"
	if err := e.checkMeta(op, name); err != nil {
		return err
	}
	if len(blob) > storage.MaxMetaBytes {
		return fault.New(fault.TooLarge, op).WithField("blob").WithLimit(int64(len(blob)), storage.MaxMetaBytes)
	}
	e.metaMu.Lock()
	defer e.metaMu.Unlock()
	if err := e.storeMeta(name, blob); err != nil {
		return failure(op+" "+e.metaPath(name), err)
	}
	e.metaOK[name] = true
	e.metaSet.Add(1)
	return nil
}

func (e *Engine) storeMeta(name string, blob []byte) error {
	path := e.metaPath(name)
	if !e.metaOK[name] {
		switch _, err := readMeta(e.fs, path); {
		case damage(err):
			if err := e.fs.Rename(path, path+damagedSuffix); err != nil {
				return err
			}
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err // a later version's, or one that cannot be read now
		}
	}
	return e.replace(path, appendMeta(make([]byte, 0, metaBytes+len(blob)), blob))
}

// RemoveMeta is described at storage.Engine.
func (e *Engine) RemoveMeta(name string) error {
	const op = "remove metadata"
	if err := e.checkMeta(op, name); err != nil {
		return err
	}
	e.metaMu.Lock()
	defer e.metaMu.Unlock()
	delete(e.metaOK, name) // after an error nobody knows
	path := e.metaPath(name)
	err := e.fs.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, op).WithField("name").WithDetail("there is no %q", name)
	}
	if err == nil {
		err = e.fs.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return failure(op+" "+path, err)
	}
	return nil
}

// replace is replaceFile with the content b. When the disk is full, the reserve
// is given up for it.
func (e *Engine) replace(path string, b []byte) error {
	write := func(f vfs.File) error {
		_, err := f.WriteAt(b, 0)
		return err
	}
	err := replaceFile(e.fs, path, write)
	if vfs.IsNoSpace(err) && e.fs.Remove(e.path(reserveName)) == nil {
		e.reserveGone.Store(true)
		e.opts.Logger.Warn("disk is full, reserve given up", "path", e.path(reserveName))
		err = replaceFile(e.fs, path, write)
	}
	return err
}
