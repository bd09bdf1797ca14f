package vfs

import (
	"fmt"
)

// OpKind is the kind of a call.
type OpKind uint8

// The calls that change what is stored, or what is durable; Mem's hook sees
// exactly these.
const (
	OpCreate   OpKind = iota + 1 // OpenFile or Lock that makes a new file
	OpWrite                      // WriteAt, WritevAt
	OpTruncate                   // Truncate, or OpenFile with O_TRUNC of a file that is not empty
	OpAllocate
	OpSync
	OpSyncAll
	OpRename
	OpRemove
	OpMkdir // each directory that MkdirAll makes
	OpSyncDir
)

// The other calls, which only Fault sees.
const (
	OpOpen OpKind = iota + 64 // OpenFile of a file that is there
	OpRead
	OpReadDir
	OpStat
	OpSize
	OpLock
	OpSpace
	OpClose
)

var opNames = map[OpKind]string{
	OpCreate: "create", OpWrite: "write", OpTruncate: "truncate", OpAllocate: "allocate",
	OpSync: "sync", OpSyncAll: "syncall", OpRename: "rename", OpRemove: "remove",
	OpMkdir: "mkdir", OpSyncDir: "syncdir", OpOpen: "open", OpRead: "read",
	OpReadDir: "readdir", OpStat: "stat", OpSize: "size", OpLock: "lock",
	OpSpace: "space", OpClose: "close",
}

// String returns the kind's name.
func (k OpKind) String() string {
	if s := opNames[k]; s != "" {
		return s
	}
	return fmt.Sprintf("op %d", uint8(k))
}

// Op describes one call that is about to happen.
type Op struct {
	N       int64 // its number, from 1, among the calls that are counted
	Kind    OpKind
	Name    string // of the file or directory, as the caller wrote it
	NewName string // of OpRename
	Off     int64  // of OpRead, OpWrite; the size of OpTruncate and OpAllocate
	Len     int    // bytes of OpRead and OpWrite
}

// String formats the op for a test's failure: "#17 write logs/a.seg [512, 1024)".
func (o Op) String() string {
	s := fmt.Sprintf("#%d %v %s", o.N, o.Kind, o.Name)
	switch o.Kind {
	case OpRename:
		s += " to " + o.NewName
	case OpRead, OpWrite:
		s += fmt.Sprintf(" [%d, %d)", o.Off, o.Off+int64(o.Len))
	case OpTruncate, OpAllocate:
		s += fmt.Sprintf(" to %d", o.Off)
	}
	return s
}
