package evloop

// Each calls f for every connection that is open. f may close connections and
// send to them; connections opened meanwhile may be left out.
func (l *Loop) Each(f func(Conn)) {
	for i := range l.slab.top {
		if r := l.slab.at(i); r.state == stOpen {
			f(Conn{Index: i, Gen: r.gen})
		}
	}
}
