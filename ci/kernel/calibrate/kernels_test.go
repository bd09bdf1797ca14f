package calibrate

import (
	"bytes"
	"compress/flate"
	"hash/crc32"
	"io"
	"testing"
)

// noise fills b with the same pseudo-random bytes each time (xorshift64*).
func noise(b []byte) []byte {
	x := uint64(88172645463325252)
	for i := range b {
		x ^= x >> 12
		x ^= x << 25
		x ^= x >> 27
		b[i] = byte((x * 2685821657736338717) >> 56)
	}
	return b
}

// words is text of n bytes with the repetition that text has.
func words(n int) []byte {
	list := []string{"topic ", "offset ", "segment ", "message ", "broker ", "credit ", "lag ", "epoch\n"}
	var out []byte
	for _, c := range noise(make([]byte, n)) {
		out = append(out, list[c%8]...)
	}
	return out[:n]
}

var sum uint64

// Arithmetic: dependent multiplications and shifts in registers.
func BenchmarkArithmetic(b *testing.B) {
	x := uint64(1)
	for i := 0; i < b.N; i++ {
		for range 1000 {
			x ^= x >> 33
			x *= 0xff51afd7ed558ccd
			x += 0x9e3779b97f4a7c15
		}
	}
	sum += x
}

// Copy: 64 KiB from one place of 4 MiB to another.
func BenchmarkCopy(b *testing.B) {
	const block = 64 << 10
	from, to := noise(make([]byte, 4<<20)), make([]byte, 4<<20)
	b.SetBytes(block)
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		at := i * block % len(from)
		copy(to[at:at+block], from[at:])
	}
	sum += uint64(to[0])
}

// CRC: CRC-32C of 64 KiB.
func BenchmarkCRC(b *testing.B) {
	data := noise(make([]byte, 64<<10))
	table := crc32.MakeTable(crc32.Castagnoli)
	b.SetBytes(int64(len(data)))
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		sum += uint64(crc32.Checksum(data, table))
	}
}

// Compress: 16 KiB of text with the standard library's flate, level 1.
func BenchmarkCompress(b *testing.B) {
	data := words(16 << 10)
	var out bytes.Buffer
	w, err := flate.NewWriter(io.Discard, 1)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		out.Reset()
		w.Reset(&out)
		if _, err := w.Write(data); err != nil {
			b.Fatal(err)
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
	sum += uint64(out.Len())
}
