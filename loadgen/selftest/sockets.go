package selftest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/portask/portask/loadgen/driver/loopback"
	"github.com/portask/portask/loadgen/driver/portask"
	"github.com/portask/portask/loadgen/fault"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/verify"
)

const (
	socketRate = 2_000
	// socketTime is the tolerance for what several processes on a few processors
	// do to a message; what the broker itself takes is measured and added.
	socketTime = time.Millisecond
)

// sockets are checks with a real broker behind a proxy of known behaviour.
func sockets(o *Options) []check {
	base := new(time.Duration) // p99.9 through a proxy that does nothing
	return []check{
		proxied(o, "sockets, healthy", "broker behind a proxy", func(ctx context.Context, p *fault.Proxy, c *Check, h *host) error {
			res, err := throughProxy(ctx, p, o.Length, nil)
			if err != nil {
				return err
			}
			if _, err := h.settle(c); err != nil {
				return err
			}
			c.compare(verify.Counts{}, found(res))
			m := measured(res)
			*base = time.Duration(m.Total.Latency.E2E.P999)
			c.Found += fmt.Sprintf(" of %d; %s", res.Counts.Sent, inWords(m.Total.Latency.E2E))
			return nil
		}),
		proxied(o, "sockets, slow", fmt.Sprintf("proxy adds %v to 1 %% of the writes", slowFor), func(ctx context.Context, p *fault.Proxy, c *Check, h *host) error {
			p.Shape(fault.Network{Hiccup: slowFor, HiccupEvery: slowEvery})
			res, err := throughProxy(ctx, p, 2*o.Length, nil)
			if err != nil {
				return err
			}
			idle, err := h.settle(c)
			if err != nil {
				return err
			}
			n := int(res.Counts.Sent)
			times := int(p.Stats().Hiccups)
			if times == 0 {
				// A client without a processor sends all in a few large writes.
				c.Expected, c.Found = "a slow write", "none"
				c.decide(Inconclusive, "%d messages came in fewer than %d writes to one connection: the proxy delayed nothing", n, slowEvery)
				return nil
			}
			var pauses []loopback.Pause
			for i := range times { // spread evenly: a write is a message, or a few
				at := uint64(i*n/times) + 1
				pauses = append(pauses, loopback.Pause{First: at, Message: at, Took: slowFor})
			}
			c.quantiles(expected(n, time.Second/socketRate, pauses), res, socketTime, socketTime+*base, idle)
			c.Figures["delayed_writes"] = float64(times)
			return nil
		}),
		proxied(o, "sockets, stall", fmt.Sprintf("proxy stalls for %v", o.Stall), func(ctx context.Context, p *fault.Proxy, c *Check, h *host) error {
			var took time.Duration
			res, err := throughProxy(ctx, p, o.Stall+o.Length, func(ctx context.Context, _ *load.Run) error {
				if err := sleep(ctx, o.Length/2); err != nil {
					return err
				}
				began := time.Now()
				p.Partition(true)
				err := sleep(ctx, o.Stall)
				p.Partition(false)
				took = time.Since(began)
				return err
			})
			if err != nil {
				return err
			}
			idle, err := h.settle(c)
			if err != nil {
				return err
			}
			at := uint64((o.Length/2).Seconds()*socketRate) + 1
			want := expected(int(res.Counts.Sent), time.Second/socketRate, []loopback.Pause{{First: at, Message: at, Took: took}})
			c.quantiles(want, res, socketTime, socketTime+*base, idle)
			return nil
		}),
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// proxied starts a broker and a proxy for f.
func proxied(o *Options, name, target string, f func(context.Context, *fault.Proxy, *Check, *host) error) check {
	return func(ctx context.Context, c *Check, h *host) (err error) {
		c.Name, c.Target, c.Expected = name, target, "-"
		if o.Broker == "" {
			c.Found = "-"
			c.decide(Skipped, "no broker to start: --portask PATH")
			return nil
		}
		b, err := fault.StartServer(ctx, o.Broker, "")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.End(false)) }()
		p, err := fault.Listen(b.Addr(), fault.ProxyOptions{Seed: 1})
		if err != nil {
			return err
		}
		defer p.Close()
		if err := h.restart(); err != nil { // the start is not the check's
			return err
		}
		return f(ctx, p, c, h)
	}
}

// throughProxy runs one lane of small messages, each sent at once.
func throughProxy(ctx context.Context, p *fault.Proxy, length time.Duration, meanwhile func(context.Context, *load.Run) error) (_ *load.Result, err error) {
	d, err := portask.Open(ctx, p.Addr())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	s := plan(length, socketRate, "100B")
	s.Producers.Linger = 0
	return execute(ctx, s, d, meanwhile)
}

// measured are a run's figures, also of one that is invalid.
func measured(res *load.Result) *load.Measured {
	if res.Measured != nil {
		return res.Measured
	}
	return res.Rejected
}
