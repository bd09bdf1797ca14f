package evloop

import (
	"bytes"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/portask/portask/broker/mempool"
)

// scripted is a netio whose sockets give what the test lets arrive.
type scripted struct {
	arrived [][]byte // by fd: not yet read
	ended   []bool
}

func (p *scripted) wait([]event, int) (int, error) { return 0, nil }
func (p *scripted) wake()                          {}
func (p *scripted) attach(s socket, _ Conn) (int32, error) {
	return s.fd, nil
}

func (p *scripted) read(fd int32, a, b []byte) (int, error) {
	if len(a)+len(b) == 0 {
		panic("a read of nothing would look like the peer's end")
	}
	in := p.arrived[fd]
	if len(in) == 0 {
		if p.ended[fd] {
			return 0, nil
		}
		return 0, errAgain
	}
	n := copy(a, in)
	n += copy(b, in[n:])
	p.arrived[fd] = in[n:]
	return n, nil
}

func (p *scripted) write(_ int32, b []byte) (int, error)                  { return len(b), nil }
func (p *scripted) writev(int32, [][]byte) (int, error)                   { return 0, errAgain }
func (p *scripted) sendfile(int32, *os.File, int64, int) (n int, e error) { return 0, errAgain }
func (p *scripted) shutdown(int32) error                                  { return nil }
func (p *scripted) closeSocket(int32, bool)                               {}
func (p *scripted) peer(int32) netip.AddrPort                             { return netip.AddrPort{} }
func (p *scripted) accept() (socket, error)                               { return socket{}, errAgain }
func (p *scripted) listen(bool)                                           {}
func (p *scripted) unlisten()                                             {}
func (p *scripted) close()                                                {}

// FuzzInput runs the input path of a loop, without a system, through any order
// of arrivals, pauses, retained chunks and shortages, and checks that exactly
// the units that were sent come out, and that all memory comes back.
//
// The script is read two bytes at a time: what to do to which connection, and
// how much.
func FuzzInput(f *testing.F) {
	f.Add([]byte{0, 255, 1, 3, 2, 90, 0, 255, 4, 0, 0, 255, 8, 0})
	f.Add([]byte{0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 16, 0, 17, 1, 200, 2, 250})
	f.Add([]byte{12, 0, 0, 255, 1, 255, 2, 255, 0, 255, 1, 255, 2, 255, 0, 255, 8, 0, 13, 0, 0, 255, 4, 0, 8, 0})
	f.Add(bytes.Repeat([]byte{0, 222, 5, 1, 1, 77, 16, 0, 2, 255, 9, 1, 20, 0}, 40))
	const peers = 3
	var streams [peers][]byte
	for i := range streams {
		for j, n := range []int{4, 17, 200, 5, 9000, 16, 40_000, 64, 4, 90_000, 300, 20_000} {
			streams[i] = append(streams[i], unitOf(n+i, byte(i+j))...)
		}
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 2000 {
			return
		}
		var got [peers][]byte
		pool := mempool.NewPool(mempool.Options{MaxBytes: 700_000, KeepBytes: 100_000, FreeBytes: 100_000, Poison: true})
		var hoard []*mempool.Chunk
		keep := false
		fds := map[Conn]int{}
		var names [peers]Conn
		h := &hooks{
			opened: func(l *Loop, c Conn) { fds[c] = len(fds); names[fds[c]] = c },
			unit: func(l *Loop, c Conn, u []byte, ch *mempool.Chunk) error {
				i := fds[c]
				got[i] = append(got[i], u...)
				if keep {
					ch.Retain()
					hoard = append(hoard, ch)
				}
				if u[0]%3 == 0 {
					ch.Gen()
				}
				return nil
			},
			closed: func(_ *Loop, c Conn, err error) {
				if i := fds[c]; !bytes.Equal(got[i], streams[i]) && err != ErrMemory {
					t.Errorf("connection %d ended early: %v", i, err)
				}
			},
		}
		o := Options{Loops: 1, Handler: func(int) Handler { return h }, Engine: EngineStd, Pool: pool,
			ReadBytes: 8 << 10, ReadMaxBytes: 64 << 10, InBudgetBytes: 100_000}
		if err := o.fill(); err != nil {
			t.Fatal(err)
		}
		s := &Server{o: o, start: time.Now()}
		s.deadline.close = 1 << 30
		p := &scripted{arrived: make([][]byte, peers), ended: make([]bool, peers)}
		l := s.newLoop(0, p)
		var left [peers][]byte
		for i := range peers {
			l.open(socket{fd: int32(i)})
			left[i] = streams[i]
		}
		turn := func() {
			l.now += 100
			l.runQueued()
			l.endTurn()
			if r := l.recv; r != nil && l.recvPos > len(r.B) {
				t.Fatal("beyond the receive chunk")
			}
		}
		arrive := func(i, n int) {
			n = min(n, len(left[i]))
			p.arrived[i] = append(bytes.Clone(p.arrived[i]), left[i][:n]...)
			left[i] = left[i][n:]
			l.dispatch(event{names[i], evIn})
		}
		release := func() {
			for _, c := range hoard {
				c.Release()
			}
			hoard = nil
		}
		for ; len(script) >= 2; script = script[2:] {
			i, n := int(script[0])%4%peers, int(script[1])
			switch script[0] / 4 % 7 {
			case 0:
				arrive(i, n)
			case 1:
				l.Pause(names[i])
			case 2:
				l.Resume(names[i])
			case 3:
				keep = !keep
			case 4:
				release()
				l.retryStarved()
			case 5:
				arrive(i, n*n)
			case 6:
				l.retryStarved()
			}
			turn()
		}
		keep = false
		release()
		for i := range peers {
			l.Resume(names[i])
			arrive(i, len(left[i]))
		}
		whole := func() bool {
			for i := range peers {
				if l.Alive(names[i]) && len(got[i]) < len(streams[i]) {
					return false
				}
			}
			return true
		}
		for range 500 {
			if whole() {
				break
			}
			l.retryStarved()
			turn()
		}
		for i := range peers {
			if l.Alive(names[i]) && !bytes.Equal(got[i], streams[i]) {
				t.Errorf("connection %d: %d of %d bytes came out", i, len(got[i]), len(streams[i]))
			}
			p.ended[i] = true
			l.dispatch(event{names[i], evIn | evHup})
		}
		turn()
		turn()
		if l.slab.Live() != 0 {
			t.Errorf("%d connections left", l.slab.Live())
		}
		l.stopAll()
		if l.inBytes != 0 || l.outBytes != 0 {
			t.Errorf("accounts: %d in, %d out", l.inBytes, l.outBytes)
		}
		pool.DropKept()
		if st := pool.Stats(); st.LiveBytes != 0 {
			t.Errorf("chunks were not given back: %v", st)
		}
		pool.Close()
	})
}
