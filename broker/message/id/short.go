package id

import "errors"

// Short is an identifier for people, to tell clients, runs and the like apart in
// logs: 40 random bits, 8 characters. Among 10,000 of them two are the same with
// a probability of 1 in 20,000; what must never meet takes a ULID.
type Short uint64

// shortBits is the size of a Short; five bits make a character.
const (
	shortBits  = 40
	shortChars = shortBits / 5
)

// alphabet is Crockford's base 32 in lower case: no i, l, o, u, which are easily
// taken for others.
const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"

// NewShort returns a new short identifier. It may be called from any goroutine.
func NewShort() Short {
	g := generators.Get().(*Generator)
	s := Short(g.src.Uint64() >> (64 - shortBits))
	generators.Put(g)
	return s
}

// Append appends the eight characters to dst.
func (s Short) Append(dst []byte) []byte {
	for shift := shortBits - 5; shift >= 0; shift -= 5 {
		dst = append(dst, alphabet[s>>shift&31])
	}
	return dst
}

// String returns the eight characters.
func (s Short) String() string { return string(s.Append(make([]byte, 0, shortChars))) }

var errShort = errors.New("id: not eight characters of 0-9 and a-z without i, l, o, u")

// decoding is the inverse of alphabet; 255 is none.
var decoding = func() (d [256]byte) {
	for i := range d {
		d[i] = 255
	}
	for i := range len(alphabet) {
		c := alphabet[i]
		d[c] = byte(i)
		if c >= 'a' {
			d[c-'a'+'A'] = byte(i)
		}
	}
	return d
}()

// ParseShort is the inverse of String; capitals are the same as small letters.
func ParseShort(text string) (Short, error) {
	if len(text) != shortChars {
		return 0, errShort
	}
	var s Short
	for i := range len(text) {
		d := decoding[text[i]]
		if d == 255 {
			return 0, errShort
		}
		s = s<<5 | Short(d)
	}
	return s, nil
}
