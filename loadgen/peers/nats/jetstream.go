package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/peers/internal/flow"
)

const jsName = "nats-jetstream"

// JetStream is the driver of JetStream, for commands.
var JetStream = driver.Kind{
	Name: jsName,
	Doc:  "NATS with JetStream: messages are stored in streams",
	Addr: defaultAddr,
	Settings: map[string]string{
		"storage": "of streams: file, memory, or async (file, acknowledged before it is written); default file",
		"publish": "async (each message acknowledged) or fast (batches of the fast-ingest protocol); default async",
		"max_pending": "messages of a producer that may be unacknowledged, publish=async; default " + strconv.Itoa(maxPending) +
			", nats.go's own",
		"flow":          "messages an acknowledgement, publish=fast; default " + strconv.Itoa(flowMessages),
		"pull_messages": "messages a consumer asks for at a time, of a partition; default " + strconv.Itoa(pullMessages),
		"monitor":       "address of the server's monitoring, to learn whether it syncs before it acknowledges",
	},
	Open: func(ctx context.Context, o driver.Options) (driver.Driver, error) {
		return OpenJetStream(ctx, o.Addr, o.Settings)
	},
}

const (
	// maxPending is nats.go's default, defaultAsyncPubAckInflight.
	maxPending = 4000
	// flowMessages is what the server lowers to its own limit, 500 over the
	// number of producers of a stream.
	flowMessages = 500
	// pullMessages: with nats.go's default of 500 a consumer beside the server,
	// on two cores, had 24,000 and 26,000 messages of 1 KiB a second; with 5,000
	// it had 76,000 and 56,000, and no more with 20,000.
	pullMessages = 5000
	// bufferBytes bounds what a producer has unanswered, if nothing is said:
	// not a limit of nats.go, which counts messages.
	bufferBytes = 64 << 20
)

// The storages.
const (
	storageFile   = "file"
	storageMemory = "memory"
	storageAsync  = "async"
)

// jetStream implements driver.Driver.
type jetStream struct {
	*link
	js                     jetstream.JetStream
	storage, publish       string
	maxPending, flow, pull int
	syncAlways             bool
	can                    flow.Can
}

// OpenJetStream connects to the server at addr. settings are by the names that
// JetStream documents.
func OpenJetStream(ctx context.Context, addr string, settings map[string]string) (driver.Driver, error) {
	d := &jetStream{storage: storageFile, publish: "async", maxPending: maxPending, flow: flowMessages, pull: pullMessages}
	monitor := ""
	oneOf := func(at *string, key, v string, names ...string) error {
		for _, n := range names {
			if v == n {
				*at = v
				return nil
			}
		}
		return fmt.Errorf("driver %s: %s=%q: want one of %q", jsName, key, v, names)
	}
	number := func(at *int, key, v string, most int) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > most {
			return fmt.Errorf("driver %s: %s=%q: want a number, 1 to %d", jsName, key, v, most)
		}
		*at = n
		return nil
	}
	for k, v := range settings {
		var err error
		switch k {
		case "storage":
			err = oneOf(&d.storage, k, v, storageFile, storageMemory, storageAsync)
		case "publish":
			err = oneOf(&d.publish, k, v, "async", "fast")
		case "max_pending":
			err = number(&d.maxPending, k, v, 1<<20)
		case "flow":
			err = number(&d.flow, k, v, 1<<16-1)
		case "pull_messages":
			err = number(&d.pull, k, v, 1<<20)
		case "monitor":
			monitor = v
		default:
			err = fmt.Errorf("driver %s has no setting %q", jsName, k)
		}
		if err != nil {
			return nil, err
		}
	}
	if monitor != "" && d.storage == storageFile {
		var err error
		if d.syncAlways, err = syncsAlways(ctx, monitor); err != nil {
			return nil, fmt.Errorf("driver %s: monitor: %w", jsName, err)
		}
	}
	var err error
	if d.link, err = open(ctx, addr); err != nil {
		return nil, err
	}
	if d.js, err = jetstream.New(d.admin); err == nil {
		_, err = d.js.AccountInfo(ctx)
	}
	if err != nil {
		d.link.Close()
		return nil, fmt.Errorf("%s: %w", d.url, err)
	}
	d.describe()
	return d, nil
}

// syncsAlways asks the server's monitoring.
func syncsAlways(ctx context.Context, addr string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/varz", nil)
	if err != nil {
		return false, err
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Do(req)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return false, fmt.Errorf("%s: %s", req.URL, res.Status)
	}
	const most = 4 << 20
	b, err := io.ReadAll(io.LimitReader(res.Body, most))
	if err != nil {
		return false, err
	}
	var v struct {
		JetStream struct {
			Config *struct {
				SyncAlways bool `json:"sync_always"`
			} `json:"config"`
		} `json:"jetstream"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return false, fmt.Errorf("%s: %w", req.URL, err)
	}
	if v.JetStream.Config == nil {
		return false, fmt.Errorf("%s: the server has no JetStream", req.URL)
	}
	return v.JetStream.Config.SyncAlways, nil
}

// describe says what the levels give with these settings.
func (d *jetStream) describe() {
	none := level(message.AckNone, driver.Nothing, "written to the connection")
	d.can = flow.Can{
		Name: jsName, Visible: message.AckAccepted,
		NoLevel:  "the server's streams are synced every two minutes or so, and not before the answer (with sync_interval always they are; say monitor=ADDRESS)",
		NoKeys:   "a message has a subject and no key",
		NoGroups: "streams are not shared out among the members of a group",
		NoQueues: "its ordered consumers do not acknowledge",
	}
	switch {
	case d.storage == storageMemory:
		d.can.NoLevel = "messages are kept in memory"
		d.can.Levels = []driver.Level{none, level(message.AckAccepted, driver.Memory, "PubAck; storage memory")}
	case d.storage == storageAsync:
		d.can.NoLevel = "the PubAck comes before the message is written"
		d.can.Levels = []driver.Level{none, level(message.AckAccepted, driver.Memory, "PubAck; storage file, persist_mode async")}
	case d.syncAlways:
		const how = "PubAck; storage file, sync_interval always"
		d.can.Visible = message.AckDurable
		d.can.Levels = []driver.Level{none, level(message.AckAccepted, driver.Disk, how), level(message.AckDurable, driver.Disk, how)}
	default:
		d.can.Levels = []driver.Level{none, level(message.AckAccepted, driver.OS, "PubAck; storage file, synced in the background")}
	}
}

func (d *jetStream) Name() string { return jsName }

func (d *jetStream) Describe(context.Context) (driver.Description, error) {
	s := map[string]string{"client": "nats.go " + natsgo.Version, "storage": d.storage, "publish": d.publish, "replicas": "1"}
	if d.syncAlways {
		s["sync_interval"] = "always"
	}
	if d.publish == "fast" {
		s["flow"] = strconv.Itoa(d.flow)
	} else {
		s["max_pending"] = strconv.Itoa(d.maxPending)
	}
	return driver.Description{System: jsName, Version: d.version(), Levels: d.can.Levels, Settings: s}, nil
}

func (d *jetStream) Check(n driver.Needs) error { return d.can.Check(n) }

func streamName(topic string, partition int) string { return topic + "-" + strconv.Itoa(partition) }

func (d *jetStream) Prepare(ctx context.Context, t driver.Topic) (driver.Topic, error) {
	if err := checkTopic(t); err != nil {
		return t, err
	}
	for i := range t.Partitions {
		cfg := jetstream.StreamConfig{
			Name: streamName(t.Name, i), Subjects: []string{subject(t.Name, i)}, Replicas: 1,
			MaxAge: t.Retention, MaxBytes: -1, Storage: jetstream.FileStorage, AllowBatchPublish: d.publish == "fast",
		}
		if t.RetentionBytes > 0 {
			cfg.MaxBytes = t.RetentionBytes
		}
		switch d.storage {
		case storageMemory:
			cfg.Storage = jetstream.MemoryStorage
		case storageAsync:
			cfg.PersistMode = jetstream.AsyncPersistMode
		}
		if _, err := d.js.CreateStream(ctx, cfg); err != nil {
			return t, fmt.Errorf("create stream %s: %w", cfg.Name, err)
		}
	}
	return d.Lookup(ctx, t.Name)
}

func (d *jetStream) Lookup(ctx context.Context, name string) (driver.Topic, error) {
	t := driver.Topic{Name: name, Visibility: d.can.Visible}
	if err := checkName(name); err != nil {
		return t, err
	}
	for t.Partitions < partitionsMax {
		s, err := d.js.Stream(ctx, streamName(name, t.Partitions))
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			break
		}
		if err != nil {
			return t, err
		}
		cfg := s.CachedInfo().Config
		t.Partitions++
		t.Retention, t.RetentionBytes = cfg.MaxAge, max(0, cfg.MaxBytes)
	}
	if t.Partitions == 0 {
		return t, fmt.Errorf("no stream %s", streamName(name, 0))
	}
	return t, nil
}

func (d *jetStream) Drop(ctx context.Context, name string) error {
	t, err := d.Lookup(ctx, name)
	if t.Partitions == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	for i := range t.Partitions {
		if err := d.js.DeleteStream(ctx, streamName(name, i)); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return err
		}
	}
	return nil
}

func (d *jetStream) Connect(ctx context.Context, role string) (driver.Conn, error) {
	c := &jsConn{d: d}
	var err error
	c.nc, err = d.dial(ctx, role, c.fail)
	return c, err
}

type jsConn struct {
	conn
	d *jetStream
}

func (c *jsConn) Producer(ctx context.Context, o driver.ProducerOptions) (driver.Producer, error) {
	t, err := c.d.Lookup(ctx, o.Topic)
	if err != nil {
		return nil, err
	}
	if err := c.d.can.Check(driver.Needs{Mode: driver.Stream, Ack: o.Ack, Compression: o.Compression}); err != nil {
		return nil, err
	}
	var p interface {
		driver.Producer
	}
	switch {
	case o.Ack == message.AckNone:
		p = newStreamer(c.nc, o, t.Partitions)
	case c.d.publish == "fast":
		p, err = newFast(c.nc, o, t.Partitions, c.d.flow)
	default:
		p, err = newAsync(c.nc, o, t.Partitions, c.d.maxPending)
	}
	if err != nil {
		return nil, err
	}
	c.addProducer(p)
	return p, nil
}

func (c *jsConn) Consumer(ctx context.Context, o driver.ConsumerOptions) (driver.Consumer, error) {
	if o.Mode != driver.Stream {
		return nil, c.d.can.Check(driver.Needs{Mode: o.Mode})
	}
	js, err := jetstream.New(c.nc)
	if err != nil {
		return nil, err
	}
	k := &jsConsumer{d: c.d, Inbox: flow.NewInbox(o.Partitions, c.d.pull), seen: make([]atomic.Uint64, len(o.Partitions))}
	for i, p := range o.Partitions {
		name := streamName(o.Topic, int(p))
		s, err := js.Stream(ctx, name)
		if err != nil {
			k.Close()
			return nil, fmt.Errorf("stream %s: %w", name, err)
		}
		last := s.CachedInfo().State.LastSeq
		k.seen[i].Store(last)
		k.streams = append(k.streams, name)
		ordered, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
			DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: last + 1,
		})
		if err != nil {
			k.Close()
			return nil, fmt.Errorf("consumer of stream %s: %w", name, err)
		}
		reading, err := ordered.Consume(func(m jetstream.Msg) {
			meta, err := m.Metadata()
			if err != nil {
				k.Fail(fmt.Errorf("stream %s: %w", name, err))
				return
			}
			if k.Put(i, flow.Item{Value: m.Data(), Offset: message.Offset(meta.Sequence.Stream)}) {
				k.seen[i].Store(meta.Sequence.Stream)
			}
		}, jetstream.PullMaxMessages(c.d.pull), jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			k.Fail(fmt.Errorf("stream %s: %w", name, err))
		}))
		if err != nil {
			k.Close()
			return nil, fmt.Errorf("consume stream %s: %w", name, err)
		}
		k.reading = append(k.reading, reading)
	}
	c.addConsumer(k, k.Fail)
	return k, nil
}

// jsConsumer implements driver.Consumer.
type jsConsumer struct {
	*flow.Inbox
	d       *jetStream
	streams []string
	reading []jetstream.ConsumeContext
	seen    []atomic.Uint64 // last sequence put, by index
	closing sync.Once
}

// CaughtUp asks for the streams' last sequences.
func (k *jsConsumer) CaughtUp(ctx context.Context) (bool, error) {
	for i, name := range k.streams {
		s, err := k.d.js.Stream(ctx, name)
		if err != nil {
			return false, err
		}
		if k.seen[i].Load() < s.CachedInfo().State.LastSeq {
			return false, nil
		}
	}
	return k.Empty(), nil
}

func (k *jsConsumer) Close() error {
	k.closing.Do(func() {
		k.Inbox.Close()
		for _, r := range k.reading {
			r.Stop()
		}
		for _, r := range k.reading {
			select {
			case <-r.Closed():
			case <-time.After(closeWait):
			}
		}
	})
	return nil
}
