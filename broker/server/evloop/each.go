package evloop

// Each calls f for every connection that is open. f may close connections and
// send to them; connections opened meanwhile may be left out.
func (l *Loop) Each(f func(Conn)) {
	for i := uint32(1); i < l.slab.Top(); i++ {
		if r := l.slab.Slot(i); r.state == stOpen {
			f(Conn{Index: i, Gen: r.gen})
		}
	}
}
