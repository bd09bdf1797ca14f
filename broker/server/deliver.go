package server

import (
	"encoding/binary"
	"errors"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/wire"
)

// delivery is a DELIVER frame that did not fit into the socket at once. It keeps
// references, never bytes: weak ones to receive chunks, which may be recycled
// meanwhile (the rest then comes from the log), and leases of the log's runs.
type delivery struct {
	conn   evloop.Conn
	sub    uint32
	handle uint32
	part   *partition.Partition
	end    message.Offset    // of the frame: what the cursor becomes
	since  int64             // of the last progress, ms
	head   []byte            // of the frame, what is left
	slices []partition.Slice // what is left, not retained; either slices or runs
	runs   []storage.Run     // what is left, leased
	skip   int               // bytes of the first slice or run that were sent
	held   bool              // a part of the frame was sent
}

// weakMax bounds the slices that a blocked frame keeps; with more of them (tiny
// batches) it takes leases of the log at once.
const weakMax = 32

// serve sends a subscription one frame, if it has credit and there is something.
func (l *loop) serve(i uint32, s *subscription) {
	p := l.srv.cat.ByNum(s.part)
	if s.credit <= 0 || s.flags&subReading != 0 || l.half[s.conn] != nil {
		if p != nil && message.Offset(s.cursor) < p.Visible() {
			s.flags |= subLate
		}
		return // a CREDIT, the job's result or Writable brings it back
	}
	if p == nil || p.Closed() {
		l.endSub(i, s, errDeleted())
		return
	}
	from := message.Offset(s.cursor)
	if from >= p.Visible() {
		return
	}
	if r := l.ahead[i]; r != nil {
		delete(l.ahead, i)
		l.history(r)
		return
	}
	slices, since := p.ReadTail(from, int(s.max), l.slices[:0])
	if len(slices) == 0 {
		l.askHistory(i, s, p, from)
		return
	}
	l.fromTail(i, s, p, slices, since)
	clear(slices)
}

func errDeleted() error {
	return fault.New(fault.NotFound, "deliver").WithField("topic").WithDetail("the topic was deleted")
}

// askHistory has the log looked up on another goroutine.
func (l *loop) askHistory(i uint32, s *subscription, p *partition.Partition, from message.Offset) {
	s.flags |= subReading | subLate
	r := l.newRead()
	r.conn, r.handle, r.part, r.from, r.max = s.connection(), handleOf(i, s.use), p, from, int(s.max)
	r.Schedule() // the workers are there as long as the loops
}

// fromTail sends retained slices, the first visible since then, and releases them.
func (l *loop) fromTail(i uint32, s *subscription, p *partition.Partition, slices []partition.Slice, since int64) {
	l.runs = l.runs[:0]
	bytes, iov := 0, l.iov[:1]
	for k := range slices {
		sl := &slices[k]
		if n := len(l.runs); n > 0 && l.runs[n-1].Seed == sl.Seed {
			r := &l.runs[n-1]
			r.End, r.Bytes, r.Batches = sl.End, r.Bytes+uint32(sl.Len()), r.Batches+1
		} else if n == wire.MaxRuns {
			break
		} else {
			l.runs = append(l.runs, wire.Run{Seed: sl.Seed, First: sl.Base, End: sl.End, Bytes: uint32(sl.Len()), Batches: 1})
		}
		bytes += sl.Len()
		iov = append(iov, sl.Bytes())
	}
	end := slices[len(slices)-1].End
	head := l.frameHead(i, s, p, bytes)
	iov[0] = head
	if err := l.fits(s, len(head)+bytes); err != nil {
		releaseSlices(slices)
		clear(iov)
		l.endSub(i, s, err)
		return
	}
	n, _, err := l.ev.Writev(s.connection(), iov)
	releaseSlices(slices)
	clear(iov)
	if err != nil || n == 0 {
		s.flags |= subLate
		return // the connection ends, or Writable comes
	}
	l.charge(s, len(head)+bytes, len(slices), bytes)
	l.waitedFor(s, p, since, end)
	if n == len(head)+bytes {
		if l.delivered(i, s, end) && end < p.Visible() {
			l.enqueue(i, s)
		}
		return
	}
	d := l.newDelivery(i, s, p, end)
	l.hold(d)
	if n < len(head) {
		d.head = append(d.head, head[n:]...)
		n = 0
	} else {
		n -= len(head)
	}
	for len(slices) > 0 && n >= slices[0].Len() {
		n -= slices[0].Len()
		slices = slices[1:]
	}
	d.slices, d.skip = append(d.slices, slices...), n
	if len(d.slices) > weakMax {
		_ = l.lease(d) // if the topic was just deleted, the references may last for the frame
	}
}

// frameHead builds the frame header and the fields before the batches in l.buf.
func (l *loop) frameHead(i uint32, s *subscription, p *partition.Partition, bytes int) []byte {
	h := wire.Header{Opcode: wire.OpDeliver, Handle: handleOf(i, s.use)}
	if s.flags&subFetch != 0 {
		h = wire.Header{Opcode: wire.OpFetch.Response(), Correlation: l.fetches[i].correlation}
	}
	l.head = wire.DeliverHead{Partition: p.Index(), HWM: p.Visible(), LogStart: p.Start(), Wanted: message.Offset(s.cursor), Runs: l.runs}
	l.buf = wire.AppendDeliverHead(wire.AppendHeader(l.buf[:0], h), &l.head)
	binary.LittleEndian.PutUint32(l.buf, uint32(len(l.buf)-4+bytes))
	return l.buf
}

// fits returns why the peer does not take a frame of that size: it has a single
// batch that is larger than the connection's maximum, half of which s.max is at
// most.
func (l *loop) fits(s *subscription, frame int) error {
	max := maxFrame(l.ev.User(s.connection()))
	if frame <= max {
		return nil
	}
	return fault.New(fault.TooLarge, "deliver").WithField("max_frame").
		WithDetail("the batch at offset %d does not fit into a frame of this connection", s.cursor).WithLimit(int64(frame), int64(max))
}

func releaseSlices(slices []partition.Slice) {
	for k := range slices {
		slices[k].Release()
	}
}

// charge takes the frame's size from the credit when its first byte is sent.
func (l *loop) charge(s *subscription, frame, batches, bytes int) {
	s.credit -= int64(frame)
	l.stats.delivers++
	l.stats.batchesOut += uint64(batches)
	l.stats.bytesOut += uint64(bytes)
	for k := range l.runs {
		l.stats.messagesOut += uint64(l.runs[k].End - l.runs[k].First)
	}
}

// delivered moves the cursor behind a frame that is with the kernel. It reports
// whether the subscription is still there; its next turn is the caller's to give.
func (l *loop) delivered(i uint32, s *subscription, end message.Offset) bool {
	s.cursor = int64(end)
	if s.flags&subFetch != 0 {
		l.removeSub(i, s)
		return false
	}
	return true
}

// endSub tells the subscriber why nothing more comes, and drops it.
func (l *loop) endSub(i uint32, s *subscription, err error) {
	h, bits := wire.Header{Opcode: wire.OpSubscribe, Handle: handleOf(i, s.use)}, fault.BitClosesHandle
	if f := l.fetches[i]; f != nil {
		h, bits = wire.Header{Opcode: wire.OpFetch, Correlation: f.correlation}, 0
	}
	c := s.connection()
	l.removeSub(i, s)
	l.failWith(c, h, err, bits)
}

func (l *loop) newDelivery(i uint32, s *subscription, p *partition.Partition, end message.Offset) *delivery {
	var d *delivery
	if n := len(l.spare); n > 0 {
		d, l.spare = l.spare[n-1], l.spare[:n-1]
	} else {
		d = new(delivery)
	}
	d.conn, d.sub, d.handle, d.part, d.end, d.since = s.connection(), i, handleOf(i, s.use), p, end, l.now()
	l.half[s.conn] = d
	l.ev.WantTick(tickEvery)
	return d
}

// hold keeps the connection's queue back from now on: a part of d's frame is
// out. Before that the queue goes first; what waits in it was sent earlier.
func (l *loop) hold(d *delivery) {
	if !d.held {
		d.held = true
		l.ev.Hold(d.conn)
	}
}

// spareMax bounds the delivery records kept for reuse.
const spareMax = 64

func (l *loop) recycle(d *delivery) {
	releaseRuns(d.runs)
	clear(d.runs)
	clear(d.slices)
	*d = delivery{head: d.head[:0], slices: d.slices[:0], runs: d.runs[:0]}
	if len(l.spare) < spareMax {
		l.spare = append(l.spare, d)
	}
}

// lease replaces the slices of d by runs of the log that hold the same bytes. On
// an error d is as it was.
func (l *loop) lease(d *delivery) (err error) {
	defer func() {
		if err != nil {
			releaseRuns(d.runs)
			d.runs = d.runs[:0]
		}
	}()
	left := 0
	for k := range d.slices {
		left += d.slices[k].Len()
	}
	from := d.slices[0].Base
	for left > 0 {
		n := len(d.runs)
		if d.runs, err = d.part.Read(from, left, d.runs); err != nil {
			return err
		}
		if len(d.runs) == n {
			return fault.New(fault.Internal, "deliver").WithDetail("the log ends inside a frame")
		}
		for _, r := range d.runs[n:] {
			left -= r.Len
			from = r.End
		}
	}
	if left < 0 || from != d.end {
		return fault.New(fault.Internal, "deliver").WithDetail("the log's batches differ from memory's")
	}
	clear(d.slices)
	d.slices = d.slices[:0]
	l.stats.leases++
	return nil
}

// writable goes on with a half-written frame, then with everything else that
// the connection waits for. The subscription whose frame it was has its turn
// last: else one that is far behind would take the socket frame after frame.
func (l *loop) writable(c evloop.Conn) {
	u := l.ev.User(c)
	if u == nil {
		return
	}
	last := uint32(0)
	if d := l.half[c.Index]; d != nil && d.conn == c {
		var done bool
		if last, done = l.push(d); !done {
			return
		}
	}
	if last != 0 {
		for i := l.subs.At(last).connNext; i != 0; i = l.subs.At(i).connNext {
			l.enqueue(i, l.subs.At(i))
		}
	}
	for i := u[wordSubs]; i != 0; i = l.subs.At(i).connNext {
		l.enqueue(i, l.subs.At(i)) // those behind last are in the list already
	}
	if a := l.long[c.Index]; a != nil {
		l.pushLong(a)
		if len(l.ready) > 0 {
			l.ev.Wake() // this may be after the turn's end
		}
	}
}

// push writes what it can of d and reports whether the frame is complete, and
// whose it was: 0 if the subscription is gone.
func (l *loop) push(d *delivery) (i uint32, done bool) {
	for {
		sent, blocked, err := l.pushSome(d)
		if err != nil {
			l.ev.Close(d.conn, err)
			return 0, false
		}
		if sent > 0 {
			d.since = l.now()
		}
		if len(d.head) == 0 && len(d.slices) == 0 && len(d.runs) == 0 {
			break
		}
		if sent > 0 {
			l.hold(d)
		}
		if blocked || sent == 0 {
			return 0, false
		}
	}
	delete(l.half, d.conn.Index)
	l.ev.Unhold(d.conn)
	i, s := l.subOf(d.conn, d.handle)
	if s != nil && !l.delivered(i, s, d.end) {
		i = 0
	}
	l.recycle(d)
	return i, true
}

// pushSome does one write.
func (l *loop) pushSome(d *delivery) (sent int, blocked bool, err error) {
	iov := l.iov[:0]
	if len(d.head) > 0 {
		iov = append(iov, d.head)
	}
	held := 0
	for ; held < len(d.slices) && d.slices[held].Retain(); held++ {
		b := d.slices[held].Bytes()
		if held == 0 {
			b = b[d.skip:]
		}
		iov = append(iov, b)
	}
	if held == 0 && len(d.slices) > 0 {
		if err := l.lease(d); err != nil {
			return 0, false, err
		}
	}
	if len(d.slices) == 0 && len(d.runs) > 0 {
		if r := &d.runs[0]; r.Mem != nil {
			iov = append(iov, r.Mem[d.skip:])
		} else if len(iov) == 0 {
			return l.pushFile(d, r)
		}
	}
	n, blocked, err := l.ev.Writev(d.conn, iov)
	for k := range held {
		d.slices[k].Release()
	}
	clear(iov)
	l.consume(d, n)
	return n, blocked, err
}

// consume moves d on by n sent bytes.
func (l *loop) consume(d *delivery, n int) {
	k := min(n, len(d.head))
	d.head = d.head[:copy(d.head, d.head[k:])]
	d.skip += n - k
	for len(d.slices) > 0 && d.skip >= d.slices[0].Len() {
		d.skip -= d.slices[0].Len()
		d.slices = append(d.slices[:0], d.slices[1:]...)
	}
	for len(d.runs) > 0 && d.skip >= d.runs[0].Len {
		d.skip -= d.runs[0].Len
		d.runs[0].Release()
		d.runs = append(d.runs[:0], d.runs[1:]...)
	}
}

// pushFile sends from a file: by sendfile, or through memory where the file is
// not the kernel's.
func (l *loop) pushFile(d *delivery, r *storage.Run) (sent int, blocked bool, err error) {
	pos, n := r.Pos+int64(d.skip), r.Len-d.skip
	if f := r.File.OS(); f != nil {
		sent, blocked, err = l.ev.SendFile(d.conn, f, pos, n)
	} else {
		b := make([]byte, min(n, 256<<10))
		if _, err = r.File.ReadAt(b, pos); err != nil {
			return 0, false, err
		}
		sent, blocked, err = l.ev.Writev(d.conn, [][]byte{b})
	}
	l.consume(d, sent)
	return sent, blocked, err
}

// history takes the result of a read: runs of the log for a subscription that
// fell behind what memory holds.
func (l *loop) history(r *read) {
	if !l.fromHistory(r) {
		l.dropRead(r)
	}
}

// fromHistory delivers what was read, and reports whether it was put aside for
// later instead: it is in ahead then.
func (l *loop) fromHistory(r *read) (kept bool) {
	i, s := l.subOf(r.conn, r.handle)
	if s == nil {
		return false
	}
	s.flags &^= subReading
	if l.half[s.conn] != nil || s.credit <= 0 {
		// Its turn comes by Writable or CREDIT. An error is met again then.
		if len(r.runs) == 0 {
			return false
		}
		l.ahead[i] = r
		return true
	}
	var gap *storage.GapError
	switch {
	case r.part.Closed():
		l.endSub(i, s, errDeleted())
		return false
	case errors.As(r.err, &gap):
		// What was lost is said once; the subscription goes on behind it.
		err := fault.New(fault.Corrupted, "deliver").WithField("offset").WithLimit(int64(gap.From), int64(gap.Next)).WithCause(gap)
		if s.flags&subFetch != 0 {
			l.endSub(i, s, err)
			return false
		}
		l.fail(r.conn, wire.Header{Opcode: wire.OpSubscribe, Handle: r.handle}, err)
		s.cursor = int64(gap.Next)
		l.enqueue(i, s)
		return false
	case r.err != nil:
		l.endSub(i, s, r.err)
		return false
	}
	if len(r.runs) == 0 || message.Offset(s.cursor) != r.from {
		l.enqueue(i, s)
		return false
	}
	l.runs = l.runs[:0]
	bytes, batches := 0, 0
	for k := range r.runs {
		q := &r.runs[k]
		l.runs = append(l.runs, wire.Run{Seed: q.Seed, First: q.First, End: q.End, Bytes: uint32(q.Len), Batches: uint32(q.Batches)})
		bytes += q.Len
		batches += q.Batches
	}
	head := l.frameHead(i, s, r.part, bytes)
	if err := l.fits(s, len(head)+bytes); err != nil {
		l.endSub(i, s, err)
		return false
	}
	d := l.newDelivery(i, s, r.part, r.runs[len(r.runs)-1].End)
	d.head = append(d.head, head...)
	d.runs = append(d.runs, r.runs...)
	r.forget()
	l.charge(s, len(head)+bytes, batches, bytes)
	l.stats.historyReads++
	if s.flags&subFetch == 0 && d.end < r.part.Visible() && !r.part.InTail(d.end) {
		l.askHistory(i, s, r.part, d.end) // while this frame goes out
	}
	if i, _ := l.push(d); i != 0 {
		l.enqueue(i, s)
	}
	return false
}
