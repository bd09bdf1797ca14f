package config

// Flag is a setting on the command line; it has the methods that package flag and
// its like ask for. A value of the wrong type, or out of its limits, is refused
// when it is parsed; what is accepted is kept in the list of overrides, for Load.
type Flag struct {
	key       *Key
	overrides *[]Override
}

// FlagOf makes the Flag of a key that has one.
func FlagOf(k *Key, overrides *[]Override) *Flag { return &Flag{k, overrides} }

// String is the default, then what was set last.
func (f *Flag) String() string {
	if f.key == nil { // package flag makes a zero one to recognise defaults
		return ""
	}
	return f.key.Value.String()
}

// Set takes a value from the command line.
func (f *Flag) Set(text string) error {
	if err := f.key.Value.setText(text); err != nil {
		return err
	}
	*f.overrides = append(*f.overrides, Override{Path: f.key.path, Name: "--" + f.key.Flag, Text: text})
	return nil
}

// Type is what help shows as the flag's value.
func (f *Flag) Type() string { return f.key.Value.Type() }
