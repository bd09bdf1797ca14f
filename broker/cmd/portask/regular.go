package main

import (
	"io"
	"os"
	"syscall"

	"github.com/portask/portask/broker/fault"
)

// readRegular returns the regular file that the setting field names. "-" is refused:
// it is not stdin here. What is no regular file is refused: to open a pipe that
// nobody writes would wait for ever, and no signal would end that. So the file is
// opened without waiting, and looked at both before, since to open a device may act
// on it, and after, since the name may by then be another's.
//
// Errors are faults with field: NotFound, TooLarge if it has more than limit bytes,
// and Invalid.
func readRegular(field, name string, limit int64) ([]byte, error) {
	refuse := func(code fault.Code) *fault.Error { return fault.New(code, "read "+name).WithField(field) }
	if name == "-" {
		return nil, refuse(fault.Invalid).WithDetail(`"-" is no file: nothing is read from stdin`)
	}
	check := func(info os.FileInfo, err error) error {
		switch {
		case os.IsNotExist(err):
			return refuse(fault.NotFound).WithCause(err)
		case err != nil:
			return refuse(fault.Invalid).WithDetail("cannot be read").WithCause(err)
		case !info.Mode().IsRegular():
			return refuse(fault.Invalid).WithDetail("is no regular file (%s)", info.Mode().Type())
		case info.Size() > limit:
			return refuse(fault.TooLarge).WithLimit(info.Size(), limit)
		}
		return nil
	}
	if err := check(os.Stat(name)); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, check(nil, err)
	}
	defer f.Close()
	if err := check(f.Stat()); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, check(nil, err)
	case int64(len(b)) > limit: // it grew
		return nil, refuse(fault.TooLarge).WithLimit(int64(len(b)), limit)
	}
	return b, nil
}
