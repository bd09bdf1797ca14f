package fault

import (
	"io"
	"net"
	"testing"
)

// BenchmarkPass is what the proxy costs: a mebibyte there and nothing back,
// beside the same without it.
func BenchmarkPass(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	const size = 1 << 20
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for buf := make([]byte, size); ; {
					if _, err := io.ReadFull(c, buf); err != nil {
						return
					}
					c.Write(buf[:1])
				}
			}()
		}
	}()
	p, err := Listen(l.Addr().String(), ProxyOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	for name, addr := range map[string]string{"through=proxy": p.Addr(), "through=nothing": l.Addr().String()} {
		b.Run(name, func(b *testing.B) {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			data := make([]byte, size)
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Write(data); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, data[:1]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
