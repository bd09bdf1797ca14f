package disklog

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/portask/portask/broker/storage"
)

// Catalogue is what Verify and Repair need to know of the one blob of metadata
// without which the logs are of no use. The engine does not read it.
type Catalogue struct {
	Name string // of the blob
	// Check returns an error if the blob, whose checksum holds, is none that
	// a broker would start with.
	Check func(blob []byte) error
	// Rebuild makes a blob for the logs in a directory. left is what is left
	// of the damaged one, in which any byte may be wrong, or nil. notes say,
	// a line each, what the new one holds that is guessed, or lacks.
	Rebuild func(left []byte, logs []storage.PartitionID) (blob []byte, notes []string, err error)
}

func (c *Catalogue) file() string { return filepath.Join(metaDir, c.Name) }

// missing is the problem of logs without a catalogue.
func (c *Catalogue) missing(logs int) Problem {
	return Problem{Class: MetaFile, File: c.file(), Detail: fmt.Sprintf("the catalogue is missing beside %d logs", logs)}
}

// mendMeta returns the blob of a metadata file that does not check if one bit
// turned over explains it. left is what to guess from otherwise: all behind the
// header.
func mendMeta(b []byte) (blob, left []byte, how string) {
	if len(b) < metaBytes {
		return nil, nil, ""
	}
	head, body := b[:metaBytes], b[metaBytes:]
	if checkBlock(head, magicMeta, "metadata") != nil {
		i, bit, ok := flippedBit(head, func([]byte) bool {
			_, err := parseMeta(b)
			return err == nil
		})
		if ok {
			return body, body, fmt.Sprintf("bit %d of the byte at position %d was turned over", bit, i)
		}
		return nil, body, ""
	}
	if le.Uint64(head[8:]) != uint64(len(body)) {
		return nil, body, ""
	}
	i, bit, ok := flippedByCRC(crc(body)^le.Uint32(head[16:]), len(body))
	if !ok {
		return nil, body, ""
	}
	blob = append([]byte(nil), body...)
	blob[i] ^= 1 << bit
	return blob, body, fmt.Sprintf("bit %d of the byte at position %d was turned over", bit, metaBytes+i)
}

// catalogue puts a catalogue into out if the original has none that checks:
// mended if that can be done exactly, otherwise rebuilt. Without logs none is
// needed.
func (p *repairer) catalogue(logs []storage.PartitionID) error {
	c := p.cat
	if c == nil || p.catOK || len(logs) == 0 {
		return nil
	}
	path := filepath.Join(p.dir, c.file())
	size, err := p.fs.Stat(path)
	found := err == nil && !isDir(p.fs, path, size)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var left []byte
	if !found {
		p.note(c.missing(len(logs)))
	} else {
		b, err := readFile(p.fs, path, storage.MaxMetaBytes+metaBytes)
		if err != nil && !damage(err) {
			return err
		}
		blob, rest, how := mendMeta(b)
		if blob != nil && c.Check(blob) == nil {
			p.note(Problem{Class: MetaFile, File: c.file(), Detail: "mended: " + how})
			return p.put(c.file(), appendMeta(nil, blob))
		}
		left = rest
	}
	blob, notes, err := c.Rebuild(left, logs)
	if err != nil {
		return err
	}
	for _, n := range notes {
		p.note(Problem{Class: MetaFile, File: c.file(), Detail: "rebuilt: " + n})
	}
	return p.put(c.file(), appendMeta(nil, blob))
}
