package measure

import "context"

// Burn keeps all processors busy for a share of the time, in percent, 0 to 100,
// until ctx ends.
func Burn(ctx context.Context, percent int) {
	stop := burn(min(max(percent, 0), 100))
	<-ctx.Done()
	stop()
}
