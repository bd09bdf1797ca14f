//go:build !linux

package evloop

func newRecords() []record { return make([]record, slabRecords) }

func freeRecords([]record) {}
