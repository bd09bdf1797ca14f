package memlog

import (
	"testing"

	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/storage/storagetest"
)

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t testing.TB) *storagetest.Target {
		return &storagetest.Target{
			Open: func() (storage.Engine, error) { return Open(Options{poison: true}) },
		}
	})
}
