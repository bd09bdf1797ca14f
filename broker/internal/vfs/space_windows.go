package vfs

import "golang.org/x/sys/windows"

func space(dir string) (free, total int64, err error) {
	p, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, 0, err
	}
	var f, t, all uint64
	if err := windows.GetDiskFreeSpaceEx(p, &f, &t, &all); err != nil {
		return 0, 0, err
	}
	return int64(f), int64(t), nil
}
