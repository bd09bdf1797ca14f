package message

import "github.com/portask/portask/broker/fault"

// MaxTopicBytes bounds a topic's name: a file name of 255 bytes leaves room for
// a suffix.
const MaxTopicBytes = 249

// CheckTopicName reports whether name may be a topic's: 1 to 249 of a-z, A-Z,
// 0-9, dot, underscore and hyphen, but not "." or "..". op is the operation that
// the error names. The error is fault.Invalid or, for the length,
// fault.TooLarge, of the category topic, with field "topic".
func CheckTopicName(op, name string) error {
	if len(name) > MaxTopicBytes {
		return tooLarge(op, "topic", int64(len(name)), MaxTopicBytes).WithDetail("the name is too long").
			WithCategory(fault.CategoryTopic)
	}
	if name == "" || name == "." || name == ".." {
		return invalid(op, "topic", "%q is not a name", name).WithCategory(fault.CategoryTopic)
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return invalid(op, "topic", "%q has a character other than a-z, A-Z, 0-9, '.', '_' and '-' at byte %d", name, i).
				WithCategory(fault.CategoryTopic)
		}
	}
	return nil
}
