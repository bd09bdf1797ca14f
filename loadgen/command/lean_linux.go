package command

import (
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/lean"
)

func init() { platformCommands = append(platformCommands, leanCommand) }

// leanCommand is for drivers like perflab: clients that are controlled through
// standard input and cost as little as possible.
func leanCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "lean",
		Short: "Cheapest possible clients, controlled through standard input, for measuring a server",
	}
	var target, addr, topic, ack string
	dial := func() (netip.AddrPort, lean.Target, error) {
		level, err := message.ParseAckLevel(ack)
		if err != nil {
			return netip.AddrPort{}, nil, err
		}
		t, err := lean.NewTarget(target, topic, level)
		if err != nil {
			return netip.AddrPort{}, nil, err
		}
		a, err := netip.ParseAddrPort(addr)
		if err != nil {
			return a, nil, fmt.Errorf("--addr: %w", err)
		}
		return a, t, nil
	}
	f := c.PersistentFlags()
	f.StringVar(&target, "target", "portask", "portask or kernel (the calibration kernel)")
	f.StringVar(&addr, "addr", defaultAddress, "IPv4 address of the server")
	f.StringVar(&topic, "topic", "lean", "topic; partition 0 is used")
	f.StringVar(&ack, "ack", "durable", "accepted or durable")

	var progress string
	f.StringVar(&progress, "progress", "", "file through which the consumer tells the producer how far it is")
	shared := func() (*lean.Progress, error) {
		if progress == "" {
			return nil, nil
		}
		return lean.OpenProgress(progress)
	}

	var po lean.ProducerOptions
	produce := &cobra.Command{
		Use:   "produce",
		Short: `Send phases: for each line "run 3s" or "run 1000" (batches) one line of JSON`,
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			a, t, err := dial()
			if err != nil {
				return err
			}
			if po.Progress, err = shared(); err != nil {
				return err
			}
			p, err := lean.DialProducer(a, t, po)
			if err != nil {
				return err
			}
			defer p.Close()
			return p.Serve(os.Stdin, os.Stdout)
		},
	}
	produce.Flags().IntVar(&po.BatchMessages, "batch", 64, "messages a batch")
	produce.Flags().IntVar(&po.MessageBytes, "size", 1024, "bytes of a message's value")
	produce.Flags().IntVar(&po.WindowBytes, "window", 4<<20, "bytes sent and not yet acknowledged")
	produce.Flags().IntVar(&po.BacklogBytes, "backlog", 8<<20, "bytes sent and not yet verified by the consumer, with --progress")
	produce.Flags().IntVar(&po.WriteBytes, "write", 256<<10, "most bytes of one write")

	var ko lean.ConsumerOptions
	consume := &cobra.Command{
		Use:   "consume",
		Short: "Receive and check phases: one line of JSON for each",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			a, t, err := dial()
			if err != nil {
				return err
			}
			if ko.Progress, err = shared(); err != nil {
				return err
			}
			k, err := lean.DialConsumer(a, t, ko)
			if err != nil {
				return err
			}
			return k.Serve(os.Stdin, os.Stdout)
		},
	}
	consume.Flags().IntVar(&ko.ReadBytes, "read", 1<<20, "bytes of the receive buffer")

	var addrFile string
	var timeout time.Duration
	answer := &cobra.Command{
		Use:   "first-answer",
		Short: "Wait for a starting broker and ask it for the topic's metadata",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return lean.FirstAnswer(addrFile, topic, timeout, os.Stdout)
		},
	}
	answer.Flags().StringVar(&addrFile, "addr-file", "", "file to which the broker writes its address")
	answer.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait for it")
	c.AddCommand(produce, consume, answer)
	return c
}
