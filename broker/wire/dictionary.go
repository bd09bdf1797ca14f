package wire

// DictionaryGet asks for a compression dictionary of a topic. It is answered by
// a Dictionary.
//
//	┌─────────┬────────┬─────────┐
//	│ topic   │ id u32 │ options │
//	│ str 249 │        │         │
//	└─────────┴────────┴─────────┘
type DictionaryGet struct {
	Topic string
	ID    uint32 // as in the headers of the frames compressed with it; not 0
}

// Append implements Payload.
func (x *DictionaryGet) Append(dst []byte) []byte {
	dst = appendString(dst, x.Topic)
	return appendOptions(le.AppendUint32(dst, x.ID), nil)
}

// Parse implements Payload.
func (x *DictionaryGet) Parse(src []byte) error {
	c := cursor{name: "DICTIONARY_GET", b: src}
	x.Topic = c.topic()
	if x.ID = c.u32("id"); x.ID == 0 {
		c.fail(c.invalid("id", "0 stands for no dictionary"))
	}
	return c.finish()
}

// Dictionary is the bytes of one, in zstd's format, with its id inside.
//
//	┌───────┬──────────────┬─────────┐
//	│ n u32 │ n bytes      │ options │   n ≤ 1 MiB
//	└───────┴──────────────┴─────────┘
type Dictionary struct {
	Bytes []byte // a view of the frame after Parse
}

// Append implements Payload.
func (x *Dictionary) Append(dst []byte) []byte {
	return appendOptions(appendBlob(dst, x.Bytes), nil)
}

// Parse implements Payload.
func (x *Dictionary) Parse(src []byte) error {
	c := cursor{name: "DICTIONARY", b: src}
	x.Bytes = c.blob("dictionary", MaxDictionaryBytes)
	return c.finish()
}

// DictionaryAdd gives a topic a new dictionary, which becomes the one that its
// producers are advised to use. It is answered by Dictionaries.
//
//	┌─────────┬───────┬──────────────┬─────────┐
//	│ topic   │ n u32 │ n bytes      │ options │   n ≤ 1 MiB
//	│ str 249 │       │              │         │
//	└─────────┴───────┴──────────────┴─────────┘
type DictionaryAdd struct {
	Topic string
	Bytes []byte // a view of the frame after Parse
}

// Append implements Payload.
func (x *DictionaryAdd) Append(dst []byte) []byte {
	return appendOptions(appendBlob(appendString(dst, x.Topic), x.Bytes), nil)
}

// Parse implements Payload.
func (x *DictionaryAdd) Parse(src []byte) error {
	c := cursor{name: "DICTIONARY_ADD", b: src}
	x.Topic = c.topic()
	x.Bytes = c.blob("dictionary", MaxDictionaryBytes)
	return c.finish()
}

// DictionaryUse chooses among the dictionaries that a topic has: producers are
// advised to use the one with the id, or none with id 0. It is answered by
// Dictionaries.
//
//	┌─────────┬────────┬─────────┐
//	│ topic   │ id u32 │ options │
//	│ str 249 │        │         │
//	└─────────┴────────┴─────────┘
type DictionaryUse struct {
	Topic string
	ID    uint32
}

// Append implements Payload.
func (x *DictionaryUse) Append(dst []byte) []byte {
	dst = appendString(dst, x.Topic)
	return appendOptions(le.AppendUint32(dst, x.ID), nil)
}

// Parse implements Payload.
func (x *DictionaryUse) Parse(src []byte) error {
	c := cursor{name: "DICTIONARY_USE", b: src}
	x.Topic = c.topic()
	x.ID = c.u32("id")
	return c.finish()
}

// DictionaryList asks for the dictionaries of a topic. It is answered by
// Dictionaries.
//
//	┌─────────┬─────────┐
//	│ topic   │ options │
//	│ str 249 │         │
//	└─────────┴─────────┘
type DictionaryList struct {
	Topic string
}

// Append implements Payload.
func (x *DictionaryList) Append(dst []byte) []byte {
	return appendOptions(appendString(dst, x.Topic), nil)
}

// Parse implements Payload.
func (x *DictionaryList) Parse(src []byte) error {
	c := cursor{name: "DICTIONARY_LIST", b: src}
	x.Topic = c.topic()
	return c.finish()
}

// Dictionaries describes the dictionaries of a topic, oldest first.
//
//	┌────────────┬──────────┬──────────────────────────────────────────┬─────────┐
//	│ active u32 │ u8 n ≤ 32│ n × (id u32, bytes u32, added µs i64)    │ options │
//	└────────────┴──────────┴──────────────────────────────────────────┴─────────┘
type Dictionaries struct {
	Active uint32 // what producers are advised to use, 0 = none
	All    []DictionaryInfo
}

// DictionaryInfo describes one dictionary.
type DictionaryInfo struct {
	ID      uint32
	Bytes   uint32
	AddedUs int64 // µs since 1970
}

const dictionaryInfoBytes = 4 + 4 + 8

// Append implements Payload.
func (x *Dictionaries) Append(dst []byte) []byte {
	dst = le.AppendUint32(dst, x.Active)
	all := x.All[:min(len(x.All), MaxDictionaries)]
	dst = append(dst, uint8(len(all)))
	for _, d := range all {
		dst = le.AppendUint32(dst, d.ID)
		dst = le.AppendUint32(dst, d.Bytes)
		dst = le.AppendUint64(dst, uint64(d.AddedUs))
	}
	return appendOptions(dst, nil)
}

// Parse implements Payload.
func (x *Dictionaries) Parse(src []byte) error {
	c := cursor{name: "DICTIONARIES", b: src}
	x.Active = c.u32("active")
	x.All = x.All[:0]
	for range c.count("dictionaries", uint32(c.u8("dictionaries")), MaxDictionaries, dictionaryInfoBytes) {
		x.All = append(x.All, DictionaryInfo{ID: c.u32("id"), Bytes: c.u32("bytes"), AddedUs: c.i64("added_us")})
	}
	return c.finish()
}

// appendBlob appends a length of 32 bits and the bytes. A blob beyond its limit
// is written all the same, for the receiver to refuse by name.
func appendBlob(dst, b []byte) []byte {
	return append(le.AppendUint32(dst, uint32(len(b))), b...)
}

// blob reads 1 to max bytes.
func (c *cursor) blob(field string, max int) []byte {
	n := c.u32(field)
	switch {
	case c.err != nil:
		return nil
	case int64(n) > int64(max):
		c.fail(c.tooLarge(field, "has too many bytes", int64(n), int64(max)))
		return nil
	case n == 0:
		c.fail(c.invalid(field, "is empty"))
		return nil
	}
	return c.take(field, int(n))
}
