package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sluice-proxy/sluice/cmd/sluice/pods"
	"github.com/sluice-proxy/sluice/proxy"
)

// findLimit is how long the API server may take to tell of a pod.
const findLimit = 15 * time.Second

// resolve puts the pod's IP into the place of pod:NAMESPACE/NAME. The proxy itself may not read pods, so whoever asks must:
// by a kubeconfig, that of kubectl if none is named.
func (q *question) resolve(ctx context.Context, kubeconfig string) error {
	namespace, name, isPod, err := pods.Parse(q.from)
	if err != nil || !isPod {
		return err
	}
	to, err := destination(q.to)
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	rest, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return fmt.Errorf("--from %s takes the right to read pods: %w", q.from, err)
	}
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return fmt.Errorf("--from %s: %w", q.from, err)
	}
	ip, err := podIP(ctx, client, namespace, name, proxy.FamilyOf(to.To.Addr()))
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	q.from = ip.String()
	return nil
}

// podIP is a pod's address in a family.
func podIP(ctx context.Context, client kubernetes.Interface, namespace, name string, family proxy.Family) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, findLimit)
	defer cancel()
	pod, err := client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return netip.Addr{}, fmt.Errorf("read pod %s/%s: %w", namespace, name, err)
	}
	if addr := pods.Address(pod, family.Has); addr.IsValid() {
		return addr, nil
	}
	return netip.Addr{}, fmt.Errorf("pod %s/%s has no %v address (it is %s)", namespace, name, family, pod.Status.Phase)
}

func addKubeconfig(cmd *cobra.Command, kubeconfig *string) {
	cmd.Flags().StringVar(kubeconfig, "kubeconfig", "", "How to reach the API server, for pod:NAMESPACE/NAME; kubectl's if it is not given.")
}
