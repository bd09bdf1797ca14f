package config

import (
	"fmt"
	"iter"
	"regexp"
	"strings"

	"github.com/portask/portask/broker/config/document"
)

// Key is one setting. Adding a setting to a program is adding a Key to its
// table.
type Key struct {
	// Name within the area; a dot nests it deeper: "tcp.keep_alive".
	Name string
	// Doc says what the setting is for, in whole sentences, without the type,
	// the limits and the default, which are known.
	Doc string
	// Value is the field it sets; see String, Bool, Count, Size, Duration, OneOf
	// and Several.
	Value Value
	// Flag is the name of its command line flag, without dashes; may be empty.
	Flag string
	// Live: a reload takes effect in the running program.
	Live bool
	// Secret: the value is never shown.
	Secret bool
	// Field is the name under which Options.Check reports the setting, so that
	// the problem is shown with the value's origin; may be empty.
	Field string

	path string
	env  string
}

// Path is the whole name: "network.tcp.keep_alive".
func (k *Key) Path() string { return k.path }

// Env is the name of its variable: "PORTASK_NETWORK_TCP_KEEP_ALIVE".
func (k *Key) Env() string { return k.env }

// Area is a group of settings.
type Area struct {
	Name string
	Doc  string
	Keys []Key
}

// Options are what a Schema needs beside its settings.
type Options struct {
	// Env is the prefix of the variables, with its underscore: "PORTASK_".
	Env string
	// EnvOther are variables with the prefix that are no settings.
	EnvOther []string
	// Version of the table, from 1.
	Version int
	// Migrations lead from earlier versions to this one, in order.
	Migrations []Migration
	// Check validates the bound fields together and reports every violation
	// (errors.Join). A *fault.Error whose Field is a Key's is shown with the
	// Key's name and origin.
	Check func() error
}

// Schema is a table of settings, bound to the fields that hold them.
type Schema struct {
	opts    Options
	areas   []Area
	keys    []*Key
	byPath  map[string]*Key
	byEnv   map[string]*Key
	byField map[string]*Key
	// tables are the paths that have settings below them.
	tables map[string]bool
}

// versionKey and schemaKey stand at the root of a file. The second is what
// editors look for; it has no meaning here.
const (
	versionKey = "version"
	schemaKey  = "$schema"
)

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

// New makes a table. It panics when the table contradicts itself: that is a
// mistake in the program, which its first test finds.
func New(o Options, areas ...Area) *Schema {
	s := &Schema{opts: o, areas: areas, byPath: map[string]*Key{}, byEnv: map[string]*Key{}, byField: map[string]*Key{}, tables: map[string]bool{}}
	if o.Version < 1 || !strings.HasSuffix(o.Env, "_") {
		panic("config: Options need a version from 1 and a prefix that ends in an underscore")
	}
	flags := map[string]string{}
	for a := range areas {
		area := &areas[a]
		for i := range area.Keys {
			k := &area.Keys[i]
			k.path = area.Name + "." + k.Name
			k.env = o.Env + strings.ToUpper(strings.ReplaceAll(k.path, ".", "_"))
			parts := strings.Split(k.path, ".")
			for n, part := range parts {
				if !namePattern.MatchString(part) {
					panic(fmt.Sprintf("config: %s: %q is no name", k.path, part))
				}
				if n > 0 {
					s.tables[strings.Join(parts[:n], ".")] = true
				}
			}
			switch {
			case k.Doc == "" || k.Value == nil:
				panic("config: " + k.path + " has no documentation or no value")
			case s.byPath[k.path] != nil:
				panic("config: " + k.path + " is there twice")
			case s.byEnv[k.env] != nil:
				panic("config: " + k.path + " and " + s.byEnv[k.env].path + " have the same variable")
			case isServiceLink(k.env, o.Env):
				panic("config: " + k.env + " could be taken for a variable of Kubernetes")
			case k.Field != "" && s.byField[k.Field] != nil:
				panic("config: " + k.path + " and " + s.byField[k.Field].path + " have the same field")
			case k.Flag != "" && flags[k.Flag] != "":
				panic("config: " + k.path + " and " + flags[k.Flag] + " have the same flag")
			}
			if err := k.Value.check(); err != nil {
				panic(fmt.Sprintf("config: the default of %s: %v", k.path, err))
			}
			if k.Flag != "" {
				flags[k.Flag] = k.path
			}
			if k.Field != "" {
				s.byField[k.Field] = k
			}
			s.keys = append(s.keys, k)
			s.byPath[k.path], s.byEnv[k.env] = k, k
		}
	}
	for path := range s.tables {
		if s.byPath[path] != nil {
			panic("config: " + path + " is both a setting and a group of settings")
		}
	}
	at := 0
	for _, m := range o.Migrations {
		if m.To < 2 || m.To > o.Version || m.To <= at {
			panic("config: migrations must be in order and lead to a version of the table")
		}
		at = m.To
	}
	return s
}

// Keys are all settings in the order of the table.
func (s *Schema) Keys() iter.Seq[*Key] {
	return func(yield func(*Key) bool) {
		for _, k := range s.keys {
			if !yield(k) {
				return
			}
		}
	}
}

// Lookup finds a setting by its path; nil if there is none.
func (s *Schema) Lookup(path string) *Key { return s.byPath[path] }

// nearest returns the known path that an unknown one was probably meant to be:
// the same name elsewhere, else the smallest number of changed letters, if it is
// small. Empty if nothing is near.
func (s *Schema) nearest(path string) string {
	last := path[strings.LastIndexByte(path, '.')+1:]
	best, bestAt := "", 1+max(2, len(path)/4)
	consider := func(name string) {
		d := document.Distance(path, name)
		if tail := name[strings.LastIndexByte(name, '.')+1:]; tail == last {
			d = min(d, 2) // right name, wrong place
		}
		if d < bestAt || d == bestAt && name < best && best != "" {
			best, bestAt = name, d
		}
	}
	for _, k := range s.keys {
		consider(k.path)
	}
	for table := range s.tables {
		consider(table)
	}
	consider(versionKey)
	return best
}

// nearestEnv is nearest for variables.
func (s *Schema) nearestEnv(name string) string {
	names := make([]string, len(s.keys))
	for i, k := range s.keys {
		names[i] = k.env
	}
	return document.Nearest(name, names)
}
