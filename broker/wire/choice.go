package wire

// Choice is a setting that may be left to the broker: 0, its zero value, does,
// and any other value is one more than the number chosen. It travels as one
// byte.
type Choice[T ~uint8] uint8

// Choose returns the choice of v, which is at most 254.
func Choose[T ~uint8](v T) Choice[T] { return Choice[T](v) + 1 }

// Value returns what was chosen; ok is false if it is left to the broker.
func (c Choice[T]) Value() (v T, ok bool) {
	if c == 0 {
		return 0, false
	}
	return T(c - 1), true
}

// Or returns what was chosen, or v if it is left to the broker.
func (c Choice[T]) Or(v T) T {
	if c == 0 {
		return v
	}
	return T(c - 1)
}
