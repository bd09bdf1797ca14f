package objectives

import "runtime"

// A turn is disturbed if other programs and the hypervisor took more than this
// share of the processors while it ran. The server with its two clients wants
// all of two cores, so what others take, they lack, and each of the compared
// servers lacks it differently. Kernel threads that write pages to the disk count
// as others, hence not less.
const disturbedShare = 0.15

// othersShare is the part of all processors, 0 to 1, that went to other programs
// and to the hypervisor between two readings.
func othersShare(from, to usage) float64 {
	total := to.at.Sub(from.at).Seconds() * float64(runtime.NumCPU())
	if total <= 0 {
		return 0
	}
	others := (to.all - from.all) - (to.own - from.own) + (to.steal - from.steal)
	return max(0, others.Seconds()/total)
}
