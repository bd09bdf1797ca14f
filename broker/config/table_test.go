package config

import (
	"errors"
	"flag"
	"strings"
	"time"

	"github.com/portask/portask/broker/fault"
)

var update = flag.Bool("update", false, "rewrite what the stories expect")

// shop is what a component's options look like to a table: the fields that the
// tests of this package configure.
type shop struct {
	name     string
	open     bool
	clerks   int
	shelf    int64
	pause    time.Duration
	keepMs   int64
	currency uint8
	sells    []string
	key      string
	deep     uint32
}

func newShop() *shop {
	return &shop{name: "corner", clerks: 2, shelf: 1 << 20, pause: 30 * time.Second, keepMs: 60_000, currency: 1, sells: []string{"tea", "milk"}, deep: 5}
}

func (s *shop) check() error {
	var errs []error
	if s.open && s.clerks == 0 {
		errs = append(errs, fault.New(fault.Invalid, "open shop").WithField("clerks").WithDetail("an open shop needs one"))
	}
	if s.shelf > 1<<29 && s.deep < 10 {
		errs = append(errs, fault.New(fault.TooLarge, "open shop").WithField("shelf_bytes").WithLimit(s.shelf, 1<<29))
	}
	if s.name == "nowhere" {
		errs = append(errs, errors.New("there is no such place"))
	}
	return errors.Join(errs...)
}

func (s *shop) table() *Schema {
	return New(Options{Env: "SHOP_", EnvOther: []string{"SHOP_CONFIG"}, Version: 3, Check: s.check, Migrations: []Migration{
		{To: 2, Moves: []Move{
			{From: "place", To: "place.name", Why: "a place has more than a name now"},
			{From: "staff.break_seconds", To: "staff.break", Why: "it has a unit now", Text: func(old string) (string, error) {
				if strings.HasPrefix(old, "-") {
					return "", errors.New("was never allowed to be negative")
				}
				return old + "s", nil
			}},
			{From: "till", Why: "nobody pays cash"},
		}},
		{To: 3, Moves: []Move{{From: "staff.break", To: "staff.pause"}}},
	}},
		Area{"place", "Where it is.", []Key{
			{Name: "name", Doc: "What is written above the door.", Flag: "name", Value: String(&s.name, "not empty", func(s string) error {
				if s == "" {
					return errors.New("must not be empty")
				}
				return nil
			})},
			{Name: "open", Doc: "Whether customers may come in.", Live: true, Value: Bool(&s.open), Flag: "open"},
			{Name: "cellar.depth", Doc: "Steps down.", Value: Count(&s.deep, 0, 100), Field: "depth"},
		}},
		Area{"staff", "Who works there.", []Key{
			{Name: "clerks", Doc: "How many serve.", Live: true, Field: "clerks", Value: Count(&s.clerks, 0, 64).Or("family", -1), Flag: "clerks"},
			{Name: "pause", Doc: "How long they rest.", Live: true, Value: Duration(&s.pause, time.Second, 24*time.Hour).Or("never", 0)},
			{Name: "key", Doc: "Opens the back door.", Secret: true, Value: String(&s.key, "", nil)},
		}},
		Area{"goods", "What there is.", []Key{
			{Name: "shelf", Doc: "How much fits.", Field: "shelf_bytes", Value: Size(&s.shelf, 1<<10, 1<<30).Or("unlimited", -1)},
			{Name: "keep", Doc: "How long it stays fresh.", Value: Millis(&s.keepMs, time.Millisecond, 365*24*time.Hour)},
			{Name: "currency", Doc: "What is paid with.", Value: OneOf(&s.currency, Is("shell", uint8(1)), Is("bead", uint8(2)))},
			{Name: "sells", Doc: "The assortment.", Live: true, Value: Several(&s.sells, Words("tea", "milk", "rope", "nails")...)},
		}},
	)
}
