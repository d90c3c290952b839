// Package plugin is sluice as a plugin of kubectl: it finds the pod of Sluice on a node and has it run the command. It knows none of the
// commands but what they say of files and pods.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// ExitCode is that of a command that ended with another than 0, and has said why.
type ExitCode int

// Error names it.
func (c ExitCode) Error() string { return "exit code " + strconv.Itoa(int(c)) }

// Called tells whether a program of that name is to be the plugin: kubectl finds plugins by their names.
func Called(program string) bool { return strings.HasPrefix(filepath.Base(program), "kubectl-sluice") }

// options are the plugin's own flags, which come before the command.
type options struct {
	kubeconfig, context       string
	node, namespace, selector string
}

// NewCommand is kubectl sluice.
func NewCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "kubectl-sluice [--node NODE] COMMAND [ARGUMENTS]",
		Short: "Ask the Sluice of a node",
		Long: "Ask the Sluice of a node: COMMAND is one of sluice, such as explain, diff, trace, check and bundle, and runs in the\n" +
			"pod of Sluice on that node. The node need not be named if there is --from pod:NAMESPACE/NAME: it is that of the pod.\n" +
			"bundle [FILE] writes the file here. It takes the right to list pods and to create pods/exec in Sluice's namespace.",
		Example: "  kubectl sluice explain --from pod:shop/web-0 --to 10.96.0.80:80\n" +
			"  kubectl sluice --node node-1 explain shop/web",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl sluice"},
		Args:          cobra.MinimumNArgs(1),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), args, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what comes after the command is the command's
	flags.StringVar(&o.node, "node", "", "Node whose Sluice is asked.")
	flags.StringVarP(&o.namespace, "namespace", "n", "kube-system", "Namespace of Sluice's pods.")
	flags.StringVarP(&o.selector, "selector", "l", "", "Labels of Sluice's pods; by default app.kubernetes.io/name=sluice or, if there is none, k8s-app=kube-proxy.")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "File that says how to reach the API server; kubectl's if it is not given.")
	flags.StringVar(&o.context, "context", "", "Context of that file.")
	return cmd
}

func (o options) run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if err := readable(args); err != nil {
		return err
	}
	cluster, err := o.connect()
	if err != nil {
		return err
	}
	node, args, err := cluster.resolve(ctx, o.node, args)
	if err != nil {
		return err
	}
	pod, err := cluster.find(ctx, o, node)
	if err != nil {
		return err
	}
	if args[0] == "bundle" {
		return cluster.bundle(ctx, pod, args[1:], stdout, stderr)
	}
	return cluster.exec(ctx, pod, append([]string{"sluice"}, args...), stdout, stderr)
}

// readable refuses what would be looked for in the pod and is here.
func readable(args []string) error {
	for _, name := range []string{"bundle", "manifest-dir"} {
		if _, given := flag(args, name); given {
			return fmt.Errorf("--%s reads what is on this machine, so that no node is asked: run sluice %s", name, args[0])
		}
	}
	return nil
}

// cluster is a connection to the API server.
type cluster struct {
	config *rest.Config
	client kubernetes.Interface
}

func (o options) connect() (*cluster, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: o.context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("API client: %w", err)
	}
	return &cluster{config, client}, nil
}

// bundle has the pod write a bundle to its output, and that into a file here: there is no disk in the pod.
func (c *cluster) bundle(ctx context.Context, pod target, args []string, stdout, stderr io.Writer) error {
	file := fmt.Sprintf("sluice-%s-%s.tar.gz", pod.node, time.Now().UTC().Format("20060102-150405"))
	switch {
	case len(args) > 1:
		return errors.New("bundle takes one file")
	case len(args) == 1 && strings.HasPrefix(args[0], "--"): // --help
		return c.exec(ctx, pod, []string{"sluice", "bundle", args[0]}, stdout, stderr)
	case len(args) == 1:
		file = args[0]
	}
	command := []string{"sluice", "bundle", "-"}
	if file == "-" {
		return c.exec(ctx, pod, command, stdout, stderr)
	}
	// It says a lot about a cluster, so nobody else is to read it.
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(c.exec(ctx, pod, command, f, stderr), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(file))
	}
	_, err = fmt.Fprintf(stderr, "wrote %s\n", file)
	return err
}
