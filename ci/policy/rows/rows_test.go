package rows

import (
	"bytes"
	"compress/gzip"
	"io"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/portask/portask/broker/compression"
)

func some() []Row {
	var all []Row
	for i := range 3 {
		r := Row{Class: "logs", File: "00112233445566" + string(rune('0'+i)) + "f", Size: 1024, Index: i, In: 1000 + i, Load: 50, CPU: 60, Steal: 1,
			AvailableMiB: 900, Load1: 123, Signs: compression.Signs{Pairs: 500, Lanes: 7, Plain: 32, Near: 9, Far: 8, Probes: 4}}
		for e := range Encoders {
			r.Cells = append(r.Cells, Cell{int64(300 + e), int64(1000 * e * i), 70})
			r.Cells[e].EncodeNs++
		}
		all = append(all, r)
	}
	return all
}

func TestRoundTrip(t *testing.T) {
	var a, b bytes.Buffer
	if err := Write(&a, some()); err != nil {
		t.Fatal(err)
	}
	if err := Write(&b, some()); err != nil || !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Fatalf("the same rows give other bytes (%v)", err)
	}
	got, err := Read(&a)
	if err != nil || !reflect.DeepEqual(got, some()) {
		t.Fatalf("%v\n%+v", err, got)
	}
}

func unpack(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, some()); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func pack(text string) *bytes.Buffer {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text)) // to memory
	_ = z.Close()
	return &b
}

func TestBadRows(t *testing.T) {
	text := unpack(t)
	for name, tt := range map[string]struct{ text, want string }{
		"other columns": {strings.Replace(text, "pairs", "peers", 1), "columns"},
		"no rows":       {text[:strings.Index(text, "\n")+1], "none"},
		"a word":        {strings.Replace(text, ",1001,", ",many,", 1), "line 3, in"},
		"negative":      {strings.Replace(text, ",1001,", ",-5,", 1), "line 3, in"},
		"a field less":  {strings.Replace(text, ",1001,", ",", 1), "wrong number of fields"},
	} {
		if _, err := Read(pack(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Read(strings.NewReader("not gzip")); err == nil {
		t.Error("read what is not packed")
	}
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	if err := Write(&b, some()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := Write(&again, all); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(&again); err != nil || !reflect.DeepEqual(got, all) {
			t.Fatalf("what was read is not what is read again: %v", err)
		}
	})
}

// The rows that are kept: files are on one side each, whole classes are held out,
// and there is enough of both.
func TestKeptRows(t *testing.T) {
	all, hash, err := Open(filepath.Join("..", "..", "..", "benchdata", "policy", "rows.csv.gz"))
	if err != nil || len(hash) != 64 {
		t.Fatal(err)
	}
	side := map[string]bool{}
	files, trained, checked := map[bool]map[string]bool{true: {}, false: {}}, map[string]bool{}, map[string]bool{}
	for i := range all {
		r := &all[i]
		if was, ok := side[r.File]; ok && was != r.Check() {
			t.Fatalf("file %s is on both sides", r.File)
		}
		side[r.File] = r.Check()
		files[r.Check()][r.File] = true
		if r.Check() {
			checked[r.Class] = true
		} else {
			trained[r.Class] = true
		}
		if len(r.Cells) != len(Encoders) {
			t.Fatalf("row %d has %d cells", i, len(r.Cells))
		}
	}
	unseen := 0
	for c := range checked {
		if !trained[c] {
			unseen++
		}
	}
	if len(files[true]) < 20 || len(files[false]) < 30 || unseen < 3 {
		t.Errorf("%d files to train on, %d to check on, %d classes unseen", len(files[false]), len(files[true]), unseen)
	}
}
