package fault

// Exit is the exit code of a command. Scripts depend on the numbers: one never
// changes its meaning.
type Exit int

// The exit codes.
const (
	ExitOK          Exit = 0
	ExitFailure     Exit = 1
	ExitUsage       Exit = 2
	ExitNotFound    Exit = 3
	ExitExists      Exit = 4
	ExitInvalid     Exit = 5
	ExitUnreachable Exit = 6
	ExitTimeout     Exit = 7
	ExitOutOfRange  Exit = 8
	ExitStorage     Exit = 9
	ExitCorrupted   Exit = 10
	ExitBusy        Exit = 11
	ExitRefused     Exit = 12
	ExitInterrupted Exit = 130
)

var exitTexts = []struct {
	exit Exit
	text string
}{
	{ExitOK, "success"},
	{ExitFailure, "a failure that no other code names"},
	{ExitUsage, "usage: unknown command or flag, missing or malformed argument"},
	{ExitNotFound, "not found: topic, partition or file"},
	{ExitExists, "exists already"},
	{ExitInvalid, "a value is refused; the field and its limit are printed"},
	{ExitUnreachable, "no broker at the address, or the connection broke"},
	{ExitTimeout, "no answer in time"},
	{ExitOutOfRange, "the offset lies outside the log; the valid range is printed"},
	{ExitStorage, "storage: disk full or failing, directory in use or of a newer format"},
	{ExitCorrupted, "damaged data was found"},
	{ExitBusy, "the broker refuses work for now: full, exhausted, shutting down"},
	{ExitRefused, "not permitted, or not supported by this broker"},
	{ExitInterrupted, "interrupted"},
}

// Exits returns all exit codes in their order.
func Exits() []Exit {
	all := make([]Exit, len(exitTexts))
	for i, e := range exitTexts {
		all[i] = e.exit
	}
	return all
}

// String says in words what e means, empty for a number that has no meaning.
func (e Exit) String() string {
	for _, t := range exitTexts {
		if t.exit == e {
			return t.text
		}
	}
	return ""
}
