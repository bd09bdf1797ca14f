//go:build !linux

package evloop

func rearmEpoll(netio, int32, Conn) { panic("no epoll here") }
