// Package killtest is the SIGKILL campaign, a test: a real broker under load is
// killed again and again and restarted on the same data, and at the end every
// message that was acknowledged must have arrived, once and in order.
package killtest
