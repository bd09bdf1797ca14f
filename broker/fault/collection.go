package fault

import (
	"fmt"
	"slices"
	"strings"
)

// Collection is the failure of some items of an operation on many: which, and
// why each. It is an error; errors.Is and errors.As look into every item.
// Collect and Err build it, so a Collection that is returned has an item.
type Collection struct {
	op    string
	item  string
	total int
	items []Item
}

// Item is one failure of a Collection.
type Item struct {
	Index int // of the item in the operation, from 0
	Err   error
}

// Collect returns nil if all errs are nil, else a *Collection of those that are
// not. op is what was tried, item what one of errs stands for: "partition".
func Collect(op, item string, errs []error) error {
	c := NewCollection(op, item)
	for i, err := range errs {
		c.Add(i, err)
	}
	return c.Err()
}

// NewCollection returns an empty collection, to be filled by Add.
func NewCollection(op, item string) *Collection { return &Collection{op: op, item: item} }

// Add notes how the item index ended; nil is success.
func (c *Collection) Add(index int, err error) {
	c.total++
	if err != nil {
		c.items = append(c.items, Item{index, err})
	}
}

// Err returns c if an item failed, else nil.
func (c *Collection) Err() error {
	if len(c.items) == 0 {
		return nil
	}
	return c
}

// Items returns the failures in the order in which they were added.
func (c *Collection) Items() []Item { return slices.Clip(c.items) }

// itemsShown bounds the text: what a thousand failures have in common, ten show.
const itemsShown = 10

// Error names how many items failed and the first ten of them.
func (c *Collection) Error() string {
	var b strings.Builder
	if c.op != "" {
		b.WriteString(c.op)
		b.WriteString(": ")
	}
	fmt.Fprintf(&b, "%d of %d failed", len(c.items), c.total)
	for i, it := range c.items {
		if i == itemsShown {
			fmt.Fprintf(&b, "; and %d more", len(c.items)-i)
			break
		}
		b.WriteString([]string{": ", "; "}[min(i, 1)])
		fmt.Fprintf(&b, "%s %d: %v", c.item, it.Index, it.Err)
	}
	return b.String()
}

// Unwrap returns the errors of all items.
func (c *Collection) Unwrap() []error {
	errs := make([]error, len(c.items))
	for i := range c.items {
		errs[i] = c.items[i].Err
	}
	return errs
}

// worst returns the code that stands for all: of the first item that cannot be
// retried, since trying all again would fail there, else of the first.
func (c *Collection) worst() (Code, *Error) {
	var code Code
	var found *Error
	for i, it := range c.items {
		x, e := find(it.Err)
		if x == None {
			x = CodeOf(it.Err)
		}
		if i == 0 {
			code, found = x, e
		}
		info := x.Info()
		if e != nil {
			info = e.Info()
		}
		if !info.Retryable {
			return x, e
		}
	}
	return code, found
}
