package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/cmd/sluice/config"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/trace"
)

func newTraceCommand(root *config.Options) *cobra.Command {
	q := question{output: "text"}
	limits := trace.Limits{PerSecond: 20}
	var kubeconfig string
	cmd := &cobra.Command{
		Use:   "trace --to IP:PORT[/PROTOCOL] [--from IP|pod:NAMESPACE/NAME]",
		Short: "Follow live packets of one flow through this node, rule by rule",
		Long: "Follow live packets of one flow through this node: which rules of nf_tables they meet (other programs' and\n" +
			"those of iptables-nft included; the kernel does not tell of those of iptables-legacy this way), what becomes of them,\n" +
			"and in the end what connection tracking and IPVS know of their connections. The rules that choose packets go\n" +
			"when this program ends, even if it is killed.",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := q.resolve(cmd.Context(), kubeconfig); err != nil {
				return err
			}
			flow, err := q.flow()
			err = errors.Join(err, checkLimits(limits), checkOutput(q.output))
			if err != nil {
				return err
			}
			if err := root.StartLogging(); err != nil {
				return err
			}
			return follow(cmd.Context(), q, flow, limits, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&q.from, "from", "", "The client's IP, or pod:NAMESPACE/NAME; everybody's packets if it is not given.")
	cmd.Flags().StringVar(&q.to, "to", "", "What is connected to: IP:PORT, with /udp or /sctp if it is not TCP.")
	cmd.Flags().IntVar(&limits.Packets, "packets", 6, "How many packets to follow, answers included.")
	cmd.Flags().DurationVar(&limits.Time, "for", 30*time.Second, "How long to wait for packets.")
	cmd.Flags().StringVarP(&q.output, "output", "o", "text", "How to print: text, or json with an object a line.")
	addKubeconfig(cmd, &kubeconfig)
	return cmd
}

// Bounds of what a trace may be asked for: each packet costs the kernel dozens of messages.
const (
	maxTracedPackets = 1000
	maxTraceTime     = time.Hour
)

func checkLimits(l trace.Limits) error {
	var errs []error
	if l.Packets < 1 || l.Packets > maxTracedPackets {
		errs = append(errs, fmt.Errorf("--packets: %d is not from 1 to %d", l.Packets, maxTracedPackets))
	}
	if l.Time <= 0 || l.Time > maxTraceTime {
		errs = append(errs, fmt.Errorf("--for: %v is not more than 0 and at most %v", l.Time, maxTraceTime))
	}
	return errors.Join(errs...)
}

// flow is what the question selects.
func (q question) flow() (nft.Flow, error) {
	to, err := destination(q.to)
	if err != nil {
		return nft.Flow{}, fmt.Errorf("--to: %w", err)
	}
	flow := nft.Flow{Protocol: to.Protocol, To: to.To}
	if q.from == "" {
		return flow, nil
	}
	p, err := q.packet()
	switch {
	case err != nil:
		return nft.Flow{}, err
	case q.from == "outside" || p.Interface != "":
		return nft.Flow{}, fmt.Errorf("--from: %q is no IP", q.from)
	}
	flow.From = p.From
	return flow, nil
}

// follow follows packets, and tells what came of it on both outputs.
func follow(ctx context.Context, q question, flow nft.Flow, limits trace.Limits, out, notes io.Writer) error {
	names, said := namesOf(ctx, q, flow)
	from := "anybody"
	if flow.From.IsValid() {
		from = flow.From.String()
	}
	_, _ = fmt.Fprintf(notes, "%s > %v/%v: %s\n", from, flow.To, flow.Protocol, said)
	var sink trace.Sink = trace.NewText(out, names)
	if q.output == "json" {
		sink = trace.JSON{Encoder: json.NewEncoder(out), Names: names}
	}
	n, err := trace.Follow(ctx, flow, limits, sink, func() {
		_, _ = fmt.Fprintf(notes, "Up to %d packets are followed for %v; ^C ends it.\n", limits.Packets, limits.Time)
	})
	if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	if n == 0 {
		_, _ = fmt.Fprintln(notes, "No such packet came.")
	}
	return nil
}

// namesOf has the proxy say what the addresses are, and in a few words what it makes of such a packet.
func namesOf(ctx context.Context, q question, flow nft.Flow) (trace.Names, string) {
	if q.from == "" {
		q.from = "outside"
	}
	q.output, q.blind = "json", true
	var body bytes.Buffer
	if err := askProxy(ctx, "/explain", q.values(), &body); err != nil {
		return nil, fmt.Sprintf("not known here (%v)", err)
	}
	var answer struct {
		Service, Kind string
		Fate          struct{ Is, Why string }
		Endpoints     []struct{ Address netip.AddrPort }
	}
	if err := json.Unmarshal(body.Bytes(), &answer); err != nil {
		return nil, fmt.Sprintf("not known here (%v)", err)
	}
	said := fmt.Sprintf("%s, %s", answer.Fate.Is, answer.Fate.Why)
	if answer.Service == "" {
		return nil, said
	}
	names := trace.Names{flow.To: answer.Service}
	for _, e := range answer.Endpoints {
		names[e.Address] = "endpoint of " + answer.Service
	}
	return names, fmt.Sprintf("%s of %s; %s", answer.Kind, answer.Service, said)
}
