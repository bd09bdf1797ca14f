package evloop

import "golang.org/x/sys/unix"

// rearmEpoll makes epoll look at the socket again: a modification, even to the
// same, yields an event if something is ready.
func rearmEpoll(n netio, fd int32, c Conn) {
	n.(*epoll).ctl(unix.EPOLL_CTL_MOD, int(fd), unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET, c)
}
