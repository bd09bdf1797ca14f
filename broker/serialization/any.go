package serialization

import (
	"encoding/json"
	"math"
	"math/big"
	"strconv"
	"time"
)

// normal turns what a library made of untyped data into the few types that
// Codec.DecodeValue promises. It changes arrays and maps in place. Recursion is
// bounded by Limits.Depth, which was checked before.
func normal(op string, v any) (any, error) {
	switch x := v.(type) {
	case nil, bool, int64, float64, string, []byte:
		return v, nil
	case uint64:
		if x <= math.MaxInt64 {
			return int64(x), nil
		}
		return x, nil
	case json.Number:
		return number(op, string(x))
	case float32:
		return float64(x), nil
	case int8:
		return int64(x), nil
	case int16:
		return int64(x), nil
	case int32:
		return int64(x), nil
	case uint8:
		return int64(x), nil
	case uint16:
		return int64(x), nil
	case uint32:
		return int64(x), nil
	case time.Time:
		return x.Format(time.RFC3339Nano), nil
	case big.Int:
		return bigNumber(op, &x)
	case []any:
		for i := range x {
			var err error
			if x[i], err = normal(op, x[i]); err != nil {
				return nil, err
			}
		}
		return x, nil
	case map[string]any:
		for k := range x {
			n, err := normal(op, x[k])
			if err != nil {
				return nil, err
			}
			x[k] = n
		}
		return x, nil
	}
	return nil, invalid(op, "value", "a %T has no form that all encodings share", v)
}

// number reads a JSON number: an integer where it is written as one and fits
// 64 bits, else a float.
func number(op, s string) (any, error) {
	if s != "-0" {
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			return i, nil
		}
		if u, err := strconv.ParseUint(s, 10, 64); err == nil {
			return u, nil
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return nil, invalid(op, "number", "%.40q is beyond the range of 64 bits", s)
	}
	return f, nil
}

// bigNumber is an integer of CBOR beyond 64 bits, which the other encodings do
// not have.
func bigNumber(op string, x *big.Int) (any, error) {
	switch {
	case x.IsInt64():
		return x.Int64(), nil
	case x.IsUint64():
		return x.Uint64(), nil
	}
	return nil, invalid(op, "number", "an integer of %d bits; 64 is the most that all encodings share", x.BitLen())
}
