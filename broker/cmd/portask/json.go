package main

import (
	"encoding/json"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/serialization"
)

// jsonRecord is a consumed message as one line of JSON. A key or value that is
// not UTF-8 goes out in base64 under the other name, so that nothing is
// replaced silently.
type jsonRecord struct {
	Topic     string       `json:"topic"`
	Partition uint32       `json:"partition"`
	Offset    int64        `json:"offset"`
	Time      string       `json:"time"`
	ID        string       `json:"id,omitempty"`
	Key       *string      `json:"key,omitempty"`
	KeyBytes  []byte       `json:"key_base64,omitempty"`
	Value     *string      `json:"value,omitempty"`
	ValBytes  []byte       `json:"value_base64,omitempty"`
	Encoding  string       `json:"encoding,omitempty"`
	Headers   []jsonHeader `json:"headers,omitempty"`
}

type jsonHeader struct {
	Key      string  `json:"key"`
	Value    *string `json:"value,omitempty"`
	ValBytes []byte  `json:"value_base64,omitempty"`
}

// appendJSON appends r as one line.
func appendJSON(dst []byte, r *record) ([]byte, error) {
	j := jsonRecord{
		Topic:     r.Topic,
		Partition: r.Partition,
		Offset:    int64(r.Message.Offset),
		Time:      timeOf(r.Message).Format(timeLayout),
		ID:        idText(r.Message),
	}
	j.Key, j.KeyBytes = serialization.TextOrBytes(r.Message.Key)
	j.Value, j.ValBytes = serialization.TextOrBytes(r.Message.Value)
	if r.Message.Encoding != message.Raw {
		j.Encoding = r.Message.Encoding.String()
	}
	for _, h := range r.Message.Headers {
		jh := jsonHeader{Key: h.Key}
		jh.Value, jh.ValBytes = serialization.TextOrBytes(h.Value)
		j.Headers = append(j.Headers, jh)
	}
	b, err := json.Marshal(&j)
	if err != nil {
		return dst, err
	}
	return append(append(dst, b...), '\n'), nil
}
