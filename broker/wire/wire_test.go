package wire

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

func TestDetect(t *testing.T) {
	for first, want := range map[string]Kind{
		"": KindShort, "P": KindShort, "PT": KindShort, "PTSK": KindPortask, "PTSK\x01\x00\x01\x00": KindPortask,
		"PTSX": KindUnknown, "PO": KindShort, "POST / HTTP/1.1": KindHTTP, "GET ": KindHTTP, "GET": KindShort, "GETS": KindUnknown,
		"HEAD /": KindHTTP, "PUT /x": KindHTTP, "DELETE ": KindHTTP, "OPTIONS ": KindHTTP, "PATCH /": KindHTTP, "CONNECT ": KindHTTP,
		"TRACE /": KindHTTP, "PRI * HTTP/2.0\r\n": KindHTTP, "get ": KindUnknown,
		"\x16": KindShort, "\x16\x03": KindTLS, "\x16\x03\x01\x02\x00": KindTLS, "\x16\x04": KindUnknown,
		"\x00": KindUnknown, "\x00\x00\x00\x20\x00\x12\x00\x03": KindUnknown, // a Kafka request
	} {
		if got := Detect([]byte(first)); got != want {
			t.Errorf("Detect(%q) = %v, want %v", first, got, want)
		}
	}
	for _, o := range openings {
		if len(o.text) > PrefaceBytes {
			t.Errorf("%q is longer than a preface: 8 bytes would not decide", o.text)
		}
	}
}

func TestHTTPClientIsAnswered(t *testing.T) {
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(HTTPAnswer())), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusBadRequest || !r.Close || !strings.Contains(string(body), "Portask protocol") {
		t.Errorf("%+v %q %v", r, body, err)
	}
	if err := r.Body.Close(); err != nil {
		t.Error(err)
	}
}

func TestTLSClientIsAnswered(t *testing.T) {
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		hello := make([]byte, 4096)
		n, err := server.Read(hello)
		if kind := Detect(hello[:n]); err != nil || kind != KindTLS {
			t.Errorf("the hello of crypto/tls looks like %v, %v", kind, err)
		}
		if _, err := server.Write(TLSAlert()); err != nil {
			t.Error(err)
		}
		_ = server.Close()
	}()
	err := tls.Client(client, &tls.Config{InsecureSkipVerify: true}).Handshake() //nolint:gosec // no server to verify
	if !strings.Contains(fmt.Sprint(err), "handshake failure") {
		t.Errorf("crypto/tls says %v", err)
	}
	_ = client.Close()
	<-done
}

func TestNegotiation(t *testing.T) {
	for _, c := range [][2]uint16{{1, 1}, {1, 9}} {
		if v, err := Negotiate(c[0], c[1]); v != Version || err != nil {
			t.Errorf("Negotiate(%d, %d) = %d, %v", c[0], c[1], v, err)
		}
	}
	for wanted, got := range map[uint32]uint32{0: 10_000, 1: 1000, 1000: 1000, 30_000: 30_000, 1 << 31: 600_000} {
		if n := NegotiateHeartbeat(wanted); n != got {
			t.Errorf("NegotiateHeartbeat(%d) = %d, want %d", wanted, n, got)
		}
	}
	for _, c := range [][3]uint32{{0, 0, DefaultMaxFrame}, {0, 3 << 20, 3 << 20}, {8 << 20, 0, 8 << 20}, {8 << 20, 4 << 20, 4 << 20}, {4 << 20, 8 << 20, 4 << 20}} {
		if n := NegotiateMaxFrame(c[0], c[1]); n != c[2] {
			t.Errorf("NegotiateMaxFrame(%d, %d) = %d, want %d", c[0], c[1], n, c[2])
		}
	}
}

func TestTopicNames(t *testing.T) {
	for _, good := range []string{"a", "orders", "A-Z_0.9", "...", strings.Repeat("x", 249)} {
		if err := CheckTopicName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, want := range map[string]struct {
		code fault.Code
		text string
	}{
		"":                       {fault.Invalid, `topic name: topic: "" is not a name`},
		".":                      {fault.Invalid, `topic name: topic: "." is not a name`},
		"..":                     {fault.Invalid, `topic name: topic: ".." is not a name`},
		"a/b":                    {fault.Invalid, `topic name: topic: "a/b" has a character other than a-z, A-Z, 0-9, '.', '_' and '-' at byte 1`},
		"kä":                     {fault.Invalid, "at byte 1"},
		"a b":                    {fault.Invalid, "at byte 1"},
		"a\x00":                  {fault.Invalid, "at byte 1"},
		strings.Repeat("x", 250): {fault.TooLarge, "topic name: topic: the name is too long (value 250 > limit 249)"},
	} {
		err := CheckTopicName(bad)
		if fault.CodeOf(err) != want.code || !strings.Contains(err.Error(), want.text) || fault.InfoOf(err).Category != fault.CategoryTopic {
			t.Errorf("%q: %v", bad, err)
		}
		var s Subscribe
		if got := s.Parse((&Subscribe{Topic: bad}).Append(nil)); fault.CodeOf(got) != want.code {
			t.Errorf("SUBSCRIBE to %q: %v", bad, got)
		}
	}
}

func TestOpcodeNames(t *testing.T) {
	for op, want := range map[Opcode]string{
		OpProduce: "PRODUCE", OpProduce.Response(): "PRODUCE_OK", OpPing.Response(): "PONG", OpError.Response(): "ERROR",
		OpAuth: "AUTH", 77: "opcode 77", 77 | ResponseBit: "answer 77", OpDeliver.Response(): "answer 49", OpError: "opcode 32767",
	} {
		if got := op.String(); got != want {
			t.Errorf("%#x is %q, want %q", uint16(op), got, want)
		}
	}
	seen := map[Opcode]bool{}
	for _, i := range opcodes {
		if seen[i.op] || i.op.IsResponse() {
			t.Errorf("opcode %d occurs twice or has the response bit", i.op)
		}
		seen[i.op] = true
	}
	if NewPayload(OpAuth) != nil || NewPayload(77) != nil || NewPayload(OpDeliver.Response()) != nil || NewPayload(OpError) != nil {
		t.Error("a payload for an opcode that has none")
	}
	if OpFetch.Response().Request() != OpFetch || !OpFetch.Response().IsResponse() || OpFetch.IsResponse() {
		t.Error("the response bit")
	}
}

func TestSupportedOpcodes(t *testing.T) {
	ok := HelloOK{Opcodes: SupportedOpcodes()}
	for op, want := range map[Opcode]bool{OpHello: true, OpProduce: true, OpPing: true, OpCredit: true, OpTopicDelete: true,
		OpAuth: false, OpDeliver: false, OpGoAway: false, OpError: false} {
		r, have := ok.Range(op)
		if have != want || have && (r.Low != 1 || r.High != 1) {
			t.Errorf("%v: %+v, %v", op, r, have)
		}
	}
}

// Every payload cut short at any place is refused, with an error that names the
// payload. PRODUCE is the exception: its batch ends where the frame does.
func TestEveryPrefixIsRefused(t *testing.T) {
	for _, s := range samples(t) {
		payload := s.p.Append(nil)
		end := len(payload)
		if s.h.Opcode == OpProduce {
			end = ProduceHeadBytes + message.EnvelopeBytes
		}
		for n := range end {
			err := NewPayload(s.h.Opcode).Parse(payload[:n:n])
			var e *fault.Error
			if !errors.As(err, &e) || !strings.HasPrefix(e.Op, "parse ") || e.Field == "" {
				t.Fatalf("%s cut to %d of %d bytes: %v", s.name, n, len(payload), err)
			}
		}
	}
}

// A count or length that lies costs no memory worth speaking of.
func TestLyingCountsTakeNoMemory(t *testing.T) {
	var before, after runtime.MemStats
	var worst uint64
	for _, s := range samples(t) {
		payload := s.p.Append(nil)
		for at := range len(payload) {
			for _, lie := range []byte{0x10, 0x27, 0x7f, 0xff} {
				bad := append([]byte{}, payload...)
				bad[at] = lie
				if at+1 < len(bad) {
					bad[at+1] = lie
				}
				p := NewPayload(s.h.Opcode)
				runtime.ReadMemStats(&before)
				_ = p.Parse(bad)
				runtime.ReadMemStats(&after)
				worst = max(worst, after.TotalAlloc-before.TotalAlloc)
			}
		}
	}
	if worst > 64<<10 {
		t.Errorf("a payload below 500 bytes took %d bytes of memory", worst)
	}
}

// A description of the largest topic fits the smallest maximum of a frame, and
// everything before HELLO_OK fits the limits there.
func TestLargestPayloadsFit(t *testing.T) {
	topic := TopicInfo{Name: strings.Repeat("t", MaxTopicBytes), Engine: strings.Repeat("e", MaxEngineBytes)}
	for i := range uint32(MaxPartitions) {
		topic.Partitions = append(topic.Partitions, PartitionInfo{Index: i, Leader: strings.Repeat("n", MaxNameBytes)})
	}
	m := Metadata{ClusterID: strings.Repeat("c", MaxIDBytes), NodeID: strings.Repeat("n", MaxIDBytes), Topics: []TopicInfo{topic}}
	if n := len(AppendFrame(nil, Header{Opcode: OpMetadata.Response()}, &m)); n > MinMaxFrame {
		t.Errorf("METADATA_OK of one topic is %d bytes", n)
	}
	var back Metadata
	if err := back.Parse(m.Append(nil)); err != nil || len(back.Topics[0].Partitions) != MaxPartitions {
		t.Error(err)
	}
	h := Hello{ClientName: strings.Repeat("n", 2*MaxNameBytes), ClientVersion: strings.Repeat("v", 2*MaxVersionBytes)}
	if n := len(AppendFrame(nil, Header{Opcode: OpHello}, &h)); n > PreAuthFrameBytes {
		t.Errorf("HELLO is %d bytes", n)
	}
	var hello Hello
	if err := hello.Parse(h.Append(nil)); err != nil || len(hello.ClientName) != MaxNameBytes {
		t.Errorf("a long client name: %d bytes, %v", len(hello.ClientName), err)
	}
	long := MetadataRequest{Topics: make([]string, MaxTopics)}
	for i := range long.Topics {
		long.Topics[i] = strings.Repeat("t", MaxTopicBytes)
	}
	if n := len(AppendFrame(nil, Header{Opcode: OpMetadata}, &long)); n > DefaultMaxFrame {
		t.Errorf("METADATA for the most and longest topics is %d bytes", n)
	}
	if err := new(MetadataRequest).Parse(long.Append(nil)); err != nil {
		t.Error(err)
	}
}

func TestDeliverFrames(t *testing.T) {
	for _, s := range samples(t) {
		d, ok := s.p.(*Deliver)
		if !ok {
			continue
		}
		whole := AppendFrame(nil, s.h, d)
		head := AppendDeliverFrame(nil, s.h, &d.DeliverHead)
		if len(head) != HeaderBytes+d.HeadBytes() || !bytes.Equal(append(head, d.Batches...), whole) {
			t.Errorf("%s: head and batches do not make up the frame", s.name)
		}
		// The seed of each run is what the stored headers were sealed with.
		rest := d.Batches
		for _, r := range d.Runs {
			for range r.Batches {
				n, err := message.BatchBytes(rest, new(message.DefaultLimits()))
				if err != nil {
					t.Fatal(err)
				}
				if err := message.VerifyHeader(rest[:n], r.Seed); err != nil {
					t.Errorf("%s: seed %x: %v", s.name, r.Seed, err)
				}
				rest = rest[n:]
			}
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a delivery of too many ranges was encoded")
		}
	}()
	AppendDeliverHead(nil, &DeliverHead{Ranges: make([]Range, MaxRanges+1)})
}

func TestMostRangesFit(t *testing.T) {
	d := DeliverHead{HWM: 1 << 40}
	for i := range message.Offset(MaxRanges) {
		d.Ranges = append(d.Ranges, Range{First: 2 * i, End: 2*i + 1})
	}
	for i := range message.Offset(MaxRuns) {
		d.Runs = append(d.Runs, Run{Seed: message.Seed(i), First: 2 * i, End: 2*i + 1, Bytes: message.EnvelopeBytes, Batches: 1})
	}
	payload := append(AppendDeliverHead(nil, &d), make([]byte, d.BatchBytes())...)
	var back DeliverHead
	batches, err := ParseDeliver(payload, &back)
	if err != nil || len(batches) != MaxRuns*message.EnvelopeBytes || len(back.Ranges) != MaxRanges || len(back.Runs) != MaxRuns || back.Ranges[MaxRanges-1] != d.Ranges[MaxRanges-1] {
		t.Errorf("%d ranges, %d runs, %v", len(back.Ranges), len(back.Runs), err)
	}
}

func TestProduceFrame(t *testing.T) {
	batch := sampleBatch(t)
	h := Header{Flags: FlagNoReply, Correlation: 5, Handle: 6}
	frame := append(AppendProduceFrame(nil, h, 9, len(batch)), batch...)
	h.Opcode = OpProduce
	if want := AppendFrame(nil, h, &Produce{Partition: 9, Batch: batch}); !bytes.Equal(frame, want) {
		t.Errorf("got  % x\nwant % x", frame, want)
	}
	options := append(le.AppendUint32(nil, 9), appendOptions(nil, AppendOption(AppendOption(nil, 4, []byte("x")), 6, nil))...)
	partition, opts, got, err := ParseProduce(append(options, batch...))
	if v, ok := opts.Lookup(4); err != nil || partition != 9 || string(v) != "x" || !ok || !bytes.Equal(got, batch) {
		t.Errorf("partition %d, option 4 %q %v, %v", partition, v, ok, err)
	}
	if v, ok := opts.Lookup(6); !ok || len(v) != 0 {
		t.Errorf("option 6: %q %v", v, ok)
	}
	if _, ok := opts.Lookup(8); ok {
		t.Error("option 8 was found")
	}
}

func TestErrorFromAndBack(t *testing.T) {
	cause := fault.New(fault.StorageFull, "append").WithField("disk").WithDetail("2%% left").WithCause(io.ErrShortWrite)
	in := fmt.Errorf("orders: %w", fault.New(fault.StorageFailed, "produce").WithField("log").WithDetail("fenced").
		WithLimit(7, 5).WithRetryAfter(1500*time.Microsecond).With("partition", 3).With("path", "a b").WithCause(cause))
	x := FromError(in, OpProduce)
	want := Error{
		Code: fault.StorageFailed, Category: fault.CategoryStorage, Bits: fault.BitRetryElsewhere, RetryAfterMs: 2,
		Opcode: OpProduce, Op: "orders: produce", Message: "fenced", Field: "log", Limit: 5, Value: 7, HasLimit: true,
		Chain:   []ChainItem{{fault.StorageFull, "append: disk: 2% left"}, {fault.None, "short write"}},
		Details: []fault.Detail{{Key: "partition", Value: "3"}, {Key: "path", Value: "a b"}},
	}
	if fmt.Sprintf("%+v", x) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", x, want)
	}
	var back Error
	if err := back.Parse(x.Append(nil)); err != nil {
		t.Fatal(err)
	}
	err := back.Err()
	if err.Error() != in.Error() {
		t.Errorf("got  %v\nwant %v", err, in)
	}
	for _, code := range []fault.Code{fault.StorageFailed, fault.StorageFull} {
		if !errors.Is(err, code) {
			t.Errorf("errors.Is(%v) is false", code)
		}
	}
	info := fault.InfoOf(err)
	if info.Retryable || !info.RetryElsewhere || info.ClosesHandle || info.ClosesConnection || fault.RetryAfter(err) != 2*time.Millisecond {
		t.Errorf("%+v", info)
	}
}

func TestErrorOfOtherOrigins(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Error
		text string
	}{
		{io.EOF, Error{Code: fault.Internal, Category: fault.CategorySystem, Message: "EOF"}, "EOF"},
		{fault.NotFound, Error{Code: fault.NotFound, Category: fault.CategoryTopic, Message: "not-found"}, "not-found"},
		{fmt.Errorf("describe: %w", fault.NotFound), Error{Code: fault.NotFound, Category: fault.CategoryTopic, Op: "describe", Message: "not-found"}, "describe: not-found"},
		{fault.New(fault.Invalid, "x").WithCause(fmt.Errorf("y: %w", fault.Expired)).WithBits(fault.BitClosesConnection),
			Error{Code: fault.Invalid, Category: fault.CategoryMessage, Bits: fault.BitClosesConnection, Op: "x", Message: "invalid", Chain: []ChainItem{{fault.Expired, "y: expired"}}}, "x: invalid: y: expired"},
		{fault.New(fault.Timeout, "").WithRetryAfter(1 << 62), Error{Code: fault.Timeout, Category: fault.CategoryNetwork, Bits: fault.BitRetryable, Message: "timeout", RetryAfterMs: 1<<32 - 1}, "timeout"},
	} {
		got := FromError(c.err, 0)
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", c.want) {
			t.Errorf("got  %+v\nwant %+v", got, c.want)
		}
		if err := got.Err(); err.Error() != c.text || fault.CodeOf(err) != c.want.Code {
			t.Errorf("back as %v, want %s", err, c.text)
		}
	}
	newer := Error{Code: 777, Category: 99, Bits: fault.BitRetryable, Message: "something new"}
	var back Error
	if err := back.Parse(newer.Append(nil)); err != nil || !fault.Retryable(back.Err()) || fault.CodeOf(back.Err()) != 777 {
		t.Errorf("a code of a newer version: %v, %v", back.Err(), err)
	}
}

func TestErrorTextsAreCut(t *testing.T) {
	long := strings.Repeat("ä", MaxTextBytes) // two bytes each
	x := Error{Code: fault.Internal, Op: long, Message: "x" + long, Field: "bad \xff byte", Chain: make([]ChainItem, 20)}
	for i := range x.Chain {
		x.Chain[i] = ChainItem{fault.Internal, long}
	}
	for range 20 {
		x.Details = append(x.Details, fault.Detail{Key: long, Value: long})
	}
	payload := x.Append(nil)
	var back Error
	if err := back.Parse(payload); err != nil {
		t.Fatal(err)
	}
	if n := len(back.Details); n != MaxDetails || len(back.Details[0].Key) != MaxDetailKeyBytes || len(back.Details[0].Value) != MaxNameBytes {
		t.Errorf("%d details, the first %+v", n, back.Details[0])
	}
	if len(back.Op) != MaxNameBytes || len(back.Message) != MaxTextBytes-1 || back.Field != "bad ? byte" || len(back.Chain) != MaxChain || len(back.Chain[0].Text) != MaxCauseBytes {
		t.Errorf("%d %d %q %d", len(back.Op), len(back.Message), back.Field, len(back.Chain))
	}
	if n := HeaderBytes + len(payload); n > 32<<10 {
		t.Errorf("the largest ERROR is %d bytes", n)
	}
	for _, s := range []string{"", "a", "ä", "\xff", "a\xc3", "€€", strings.Repeat("\xff", 9)} {
		for max := range 8 {
			got := clip(s, max)
			if len(got) > max || !utf8.ValidString(got) {
				t.Errorf("clip(%q, %d) = %q", s, max, got)
			}
		}
	}
}

func TestReasonsHaveNames(t *testing.T) {
	names := map[string]bool{}
	for r := CreditNormal; r <= CreditShuttingDown; r++ {
		names[r.String()] = true
	}
	for k := StartEarliest; k < numStartKinds; k++ {
		names[k.String()] = true
	}
	for k := KindShort; k <= KindUnknown; k++ {
		names[k.String()] = true
	}
	if len(names) != 6+4+5 || CreditReason(99).String() != "unknown" || StartKind(99).String() != "unknown" {
		t.Errorf("%v", names)
	}
}
