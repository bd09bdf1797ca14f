package evloop

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/portask/portask/broker/mempool"
)

func TestSendsOfATurnAreOneWrite(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		const sends = 50
		h := &hooks{unit: func(l *Loop, c Conn, u []byte, _ *mempool.Chunk) error {
			for range sends {
				l.Send(c, u)
			}
			return nil
		}}
		f := serve(t, engine, func(int) Handler { return h }, nil)
		c := f.dial()
		u := unitOf(40, 1)
		mustWrite(t, c, u)
		mustReadUnit(t, c, bytes.Repeat(u, sends))
		f.stop()
		if s := f.srv.Stats(); s.Writes != 1 {
			t.Errorf("%d writes for %d sends in one turn", s.Writes, sends)
		}
	})
}

func TestSlowConsumerIsClosedWithItsReason(t *testing.T) {
	for _, tc := range []struct {
		bound         string
		perConn, loop int
		pool          int
	}{{"connection", 100 << 10, 8 << 20, 0}, {"loop", 8 << 20, 256 << 10, 0}, {"pool", 8 << 20, 8 << 20, 1 << 20}} {
		t.Run("bound="+tc.bound, func(t *testing.T) {
			engines(t, func(t *testing.T, engine string) {
				reasons := make(chan error, 10)
				var slow, quick Conn
				ready := make(chan struct{}, 2)
				h := &hooks{
					unit: func(_ *Loop, c Conn, u []byte, _ *mempool.Chunk) error {
						if len(u) == 5 {
							slow = c
						} else {
							quick = c
						}
						ready <- struct{}{}
						return nil
					},
					closed: func(_ *Loop, c Conn, err error) {
						if c == slow {
							reasons <- err
						}
					},
				}
				k := onLoop(h)
				f := serve(t, engine, func(int) Handler { return k }, func(o *Options) {
					o.OutPerConnBytes, o.OutBudgetBytes = tc.perConn, tc.loop
					o.SendBufferBytes = 32 << 10
					if tc.pool > 0 {
						o.Pool = mempool.NewPool(mempool.Options{MaxBytes: tc.pool, KeepBytes: -1})
					}
				})
				a, b := f.dial(), f.dial()
				a.SetReadBuffer(32 << 10)
				mustWrite(t, a, unitOf(5, 0))
				mustWrite(t, b, unitOf(6, 0))
				wait(t, ready, "a")
				wait(t, ready, "b")
				l := f.srv.Loops()[0]
				u := unitOf(10_000, 3)
				var err error
				sent := 0
				for err == nil {
					k.do(t, l, func(l *Loop) {
						for range 10 {
							if err = l.Send(slow, u); err != nil {
								return
							}
							sent++
						}
					})
				}
				var se *SlowError
				if !errors.As(err, &se) || se.Bound != tc.bound || se.Bytes <= 0 || !errors.Is(err, ErrSlow) {
					t.Fatalf("Send: %v", err)
				}
				if got := wait(t, reasons, "Closed"); !errors.Is(got, ErrSlow) {
					t.Errorf("reason %v", got)
				}
				// The other is not to blame and is served.
				k.do(t, l, func(l *Loop) {
					if err := l.Send(quick, u); err != nil {
						t.Errorf("Send to the quick one: %v", err)
					}
				})
				mustReadUnit(t, b, u)
				k.do(t, l, func(l *Loop) {
					if err := l.Send(slow, u); err != ErrClosed {
						t.Errorf("Send to the closed one: %v", err)
					}
				})
			})
		})
	}
}

// A full budget must not hit a connection that takes its data.
func TestBudgetFullOfOthersDoesNotCloseTheQuick(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		var conns []Conn
		opened := make(chan struct{}, 2)
		h := &hooks{opened: func(_ *Loop, c Conn) { conns = append(conns, c); opened <- struct{}{} }}
		k := onLoop(h)
		f := serve(t, engine, func(int) Handler { return k }, func(o *Options) {
			o.OutPerConnBytes, o.OutBudgetBytes, o.SendBufferBytes = 1<<20, 64<<10, 32<<10
		})
		a := f.dial()
		a.SetReadBuffer(32 << 10)
		wait(t, opened, "a")
		b := f.dial()
		wait(t, opened, "b")
		l := f.srv.Loops()[0]
		for blocked := false; !blocked; {
			k.do(t, l, func(l *Loop) {
				_, blocked, _ = l.Writev(conns[0], [][]byte{make([]byte, 64<<10)})
				if blocked {
					if err := l.Send(conns[0], make([]byte, 64<<10)); err != nil {
						t.Errorf("the first to queue: %v", err)
					}
				}
			})
		}
		u := unitOf(3000, 7)
		k.do(t, l, func(l *Loop) {
			for range 3 {
				if err := l.Send(conns[1], u); err != nil {
					t.Errorf("Send: %v", err)
				}
			}
		})
		mustReadUnit(t, b, bytes.Repeat(u, 3))
	})
}

// Two blocked connections and a budget that one of them used up: it makes room for
// the other, whose queue is smaller.
func TestOutputBudgetEndsTheLargestQueue(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		opened := make(chan struct{}, 2)
		ends := make(chan error, 2)
		var conns []Conn
		h := &hooks{
			opened: func(_ *Loop, c Conn) { conns = append(conns, c); opened <- struct{}{} },
			closed: func(_ *Loop, c Conn, err error) {
				if c == conns[0] {
					ends <- err
				}
			},
		}
		k := onLoop(h)
		f := serve(t, engine, func(int) Handler { return k }, func(o *Options) {
			o.OutPerConnBytes, o.OutBudgetBytes, o.SendBufferBytes = 1<<20, 64<<10, 32<<10
		})
		var peers []net.Conn
		for range 2 {
			p := f.dial()
			p.SetReadBuffer(32 << 10)
			wait(t, opened, "a connection")
			peers = append(peers, p)
		}
		l := f.srv.Loops()[0]
		written := [2]int{}
		for i := range conns {
			for blocked := false; !blocked; {
				k.do(t, l, func(l *Loop) {
					var n int
					n, blocked, _ = l.Writev(conns[i], [][]byte{make([]byte, 64<<10)})
					written[i] += n
				})
			}
		}
		last := unitOf(3000, 7)
		k.do(t, l, func(l *Loop) { // in one turn: the kernel may take more later
			if err := l.Send(conns[0], make([]byte, 64<<10)); err != nil {
				t.Errorf("the first to queue: %v", err)
			}
			if err := l.Send(conns[1], last); err != nil {
				t.Errorf("the second to queue: %v", err)
			}
		})
		var slow *SlowError
		if err := wait(t, ends, "the end of the first"); !errors.As(err, &slow) || slow.Bound != "loop" || slow.Bytes != 64<<10 {
			t.Errorf("the first ended with %v", err)
		}
		if _, err := io.CopyN(io.Discard, peers[1], int64(written[1])); err != nil {
			t.Fatal(err)
		}
		mustReadUnit(t, peers[1], last)
	})
}

// Frames are streamed with Writev or SendFile, each held until it is whole,
// while replies are sent in between.
func TestHeldFrameIsNotInterrupted(t *testing.T) {
	dir := t.TempDir()
	body := unitOf(3<<20, 77)[4:]
	path := filepath.Join(dir, "segment")
	if err := os.WriteFile(path, append([]byte("some bytes before"), body...), 0o600); err != nil {
		t.Fatal(err)
	}
	const before = int64(len("some bytes before"))
	for _, how := range []string{"writev", "sendfile"} {
		t.Run("how="+how, func(t *testing.T) {
			engines(t, func(t *testing.T, engine string) {
				file, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				defer file.Close()
				const frames = 20
				frame := make([]byte, 4, 4+len(body))
				binary.LittleEndian.PutUint32(frame, uint32(4+len(body)))
				head := frame[:4:4]
				frame = append(frame, body...)
				reply := unitOf(24, 5)

				pos, count, replies := 0, 0, 0
				pump := func(l *Loop, c Conn) {
					for count < frames {
						var n int
						var blocked bool
						var err error
						if how == "writev" || pos < 4 {
							rest := frame[pos:]
							if how == "sendfile" {
								rest = head[pos:]
							}
							n, blocked, err = l.Writev(c, [][]byte{rest[:len(rest)/2], nil, rest[len(rest)/2:]})
						} else {
							n, blocked, err = l.SendFile(c, file, before+int64(pos-4), len(frame)-pos)
						}
						if err != nil {
							t.Errorf("%s: %v", how, err)
							return
						}
						if pos += n; pos == len(frame) {
							pos = 0
							count++
							l.Unhold(c)
						} else if pos > 0 {
							l.Hold(c)
						}
						// Sent in mid-frame as often as not.
						l.Send(c, reply)
						replies++
						if blocked {
							return
						}
					}
				}
				h := &hooks{
					unit:     func(l *Loop, c Conn, _ []byte, _ *mempool.Chunk) error { pump(l, c); return nil },
					writable: func(l *Loop, c Conn) { pump(l, c) },
				}
				k := onLoop(h)
				f := serve(t, engine, func(int) Handler { return k }, nil)
				c := f.dial()
				mustWrite(t, c, unitOf(4, 0))
				gotFrames, gotReplies := 0, 0
				buf := make([]byte, len(frame))
				for gotFrames < frames {
					if _, err := io.ReadFull(c, buf[:4]); err != nil {
						t.Fatal(err)
					}
					n := int(binary.LittleEndian.Uint32(buf))
					if n != len(frame) && n != len(reply) {
						t.Fatalf("a unit of %d bytes: frames and replies are mixed up", n)
					}
					if _, err := io.ReadFull(c, buf[4:n]); err != nil {
						t.Fatal(err)
					}
					if n == len(frame) {
						gotFrames++
						if !bytes.Equal(buf, frame) {
							t.Fatalf("frame %d is damaged", gotFrames)
						}
					} else {
						gotReplies++
						if !bytes.Equal(buf[:n], reply) {
							t.Fatalf("reply %d is damaged", gotReplies)
						}
					}
				}
				k.do(t, f.srv.Loops()[0], func(*Loop) {}) // replies is the loop's
				for ; gotReplies < replies; gotReplies++ {
					mustReadUnit(t, c, reply)
				}
			})
		})
	}
}

func TestWritevOfMoreThanTheSystemTakesAtOnce(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		var all []byte
		var bufs [][]byte
		for i := range 5000 {
			b := unitOf(4+i%90, byte(i))
			if i%10 == 0 {
				b = nil
			}
			bufs = append(bufs, b)
			all = append(all, b...)
		}
		blockedOnce := false
		h := &hooks{}
		left := bufs
		pump := func(l *Loop, c Conn) {
			for len(left) > 0 {
				n, blocked, err := l.Writev(c, left)
				if err != nil {
					t.Errorf("Writev: %v", err)
					return
				}
				for len(left) > 0 && n >= len(left[0]) {
					n -= len(left[0])
					left = left[1:]
				}
				if n > 0 {
					left[0] = left[0][n:]
				}
				if blocked {
					blockedOnce = true
					return
				}
			}
		}
		h.unit = func(l *Loop, c Conn, _ []byte, _ *mempool.Chunk) error { pump(l, c); return nil }
		h.writable = pump
		f := serve(t, engine, func(int) Handler { return h }, func(o *Options) { o.SendBufferBytes = 16 << 10 })
		c := f.dial()
		mustWrite(t, c, unitOf(4, 0))
		mustReadUnit(t, c, all)
		f.stop()
		t.Logf("blocked: %v", blockedOnce)
	})
}

func TestSendFileBeyondTheEndSaysSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "short")
	os.WriteFile(path, make([]byte, 100), 0o600)
	engines(t, func(t *testing.T, engine string) {
		file, _ := os.Open(path)
		defer file.Close()
		results := make(chan error, 1)
		reasons := make(chan error, 1)
		h := &hooks{
			unit: func(l *Loop, c Conn, _ []byte, _ *mempool.Chunk) error {
				n, _, err := l.SendFile(c, file, 40, 100)
				if n != 60 {
					t.Errorf("sent %d, want 60", n)
				}
				results <- err
				return nil
			},
			closed: func(_ *Loop, _ Conn, err error) { reasons <- err },
		}
		f := serve(t, engine, func(int) Handler { return h }, nil)
		c := f.dial()
		mustWrite(t, c, unitOf(4, 0))
		if err := wait(t, results, "SendFile"); err != io.ErrUnexpectedEOF {
			t.Errorf("SendFile: %v", err)
		}
		if err := wait(t, reasons, "Closed"); err != io.ErrUnexpectedEOF {
			t.Errorf("reason: %v", err)
		}
	})
}

// WantWritable is answered at once when nothing blocks, and after the queue
// otherwise.
func TestWantWritable(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		calls := make(chan int, 10)
		h := &hooks{
			unit: func(l *Loop, c Conn, u []byte, _ *mempool.Chunk) error {
				if len(u) > 4 {
					l.Send(c, u)
				}
				l.WantWritable(c)
				return nil
			},
			writable: func(l *Loop, c Conn) { calls <- l.Queued(c) },
		}
		f := serve(t, engine, func(int) Handler { return h }, func(o *Options) { o.SendBufferBytes = 16 << 10 })
		c := f.dial()
		mustWrite(t, c, unitOf(4, 0))
		if q := wait(t, calls, "Writable"); q != 0 {
			t.Errorf("%d bytes queued", q)
		}
		u := unitOf(200<<10, 1)
		var wg sync.WaitGroup
		wg.Go(func() { c.Write(u) })
		mustReadUnit(t, c, u)
		wg.Wait()
		if q := wait(t, calls, "Writable"); q != 0 {
			t.Errorf("%d bytes queued", q)
		}
	})
}

// Everything the system may do short of failing: short reads and writes, and
// calls that would block although there is something to do.
func TestFaultsOfTheSystemChangeNothing(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		for seed := range uint64(4) {
			rng := rand.New(rand.NewPCG(seed, 1)) // used by the loop only
			fault := func(_ int32, n int) (int, bool) {
				switch rng.IntN(4) {
				case 0:
					return 0, true
				case 1:
					return 1 + rng.IntN(n), false
				case 2:
					return 1 + rng.IntN(min(n, 40)), false
				}
				return n, false
			}
			f := serve(t, engine, func(int) Handler { return echo() }, func(o *Options) {
				o.OutPerConnBytes = 1 << 20
				wrap := o.wrap
				o.wrap = func(i int, n netio) netio {
					m := wrap(i, n).(*meter)
					m.onRead, m.onWrite = fault, fault
					return m
				}
			})
			var wg sync.WaitGroup
			for i := range 4 {
				c := f.dial()
				var all []byte
				for j := range 60 {
					all = append(all, unitOf(4+(i*7+j*j*13)%9000, byte(i*60+j))...)
				}
				wg.Go(func() { c.Write(all); c.CloseWrite() })
				wg.Go(func() {
					got, err := io.ReadAll(c)
					if err != nil || !bytes.Equal(got, all) {
						t.Errorf("seed %d: echo of %d bytes gave %d, %v", seed, len(all), len(got), err)
					}
				})
			}
			wg.Wait()
			f.stop()
		}
	})
}
