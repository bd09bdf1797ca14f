package config

// Setting is the outcome of Load for one key.
type Setting struct {
	Path string
	// Text is the value as a variable or flag would say it; a secret one is not
	// shown.
	Text   string
	Origin Origin
	Live   bool

	raw string
}

// Snapshot is the outcome of Load for all keys, in the order of the table.
type Snapshot struct {
	File     string
	Content  Content // of the file; zero if there is none
	Version  int     // the file's; the table's if there is no file
	Settings []Setting
	// Notes say what migrations changed, a sentence each.
	Notes []string
}

// Lookup finds a setting.
func (s *Snapshot) Lookup(path string) (Setting, bool) {
	for _, t := range s.Settings {
		if t.Path == path {
			return t, true
		}
	}
	return Setting{}, false
}

// Change is a setting whose value differs between two Snapshots of one table.
type Change struct {
	Path     string
	Old, New string // as Setting.Text
	Origin   Origin // of the new value
	// Live: a running program takes the new value; else it needs a restart.
	Live bool
}

// Diff returns what differs, in the order of the table.
func Diff(old, now *Snapshot) []Change {
	before := make(map[string]*Setting, len(old.Settings))
	for i := range old.Settings {
		before[old.Settings[i].Path] = &old.Settings[i]
	}
	var out []Change
	for _, n := range now.Settings {
		if o := before[n.Path]; o != nil && o.raw != n.raw {
			out = append(out, Change{Path: n.Path, Old: o.Text, New: n.Text, Origin: n.Origin, Live: n.Live})
		}
	}
	return out
}

// Reloaded is what a program runs with that ran with s and took the live
// settings of now: the others keep their old values until the restart.
func (s *Snapshot) Reloaded(now *Snapshot) *Snapshot {
	out := &Snapshot{File: now.File, Content: now.Content, Version: now.Version, Notes: now.Notes, Settings: make([]Setting, 0, len(now.Settings))}
	for _, n := range now.Settings {
		if o, ok := s.Lookup(n.Path); ok && !n.Live && o.raw != n.raw {
			n = o
		}
		out.Settings = append(out.Settings, n)
	}
	return out
}
