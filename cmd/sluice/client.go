package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/cmd/sluice/config"
)

const (
	// bootstrapWait is how long an address that may be a ClusterIP gets to answer.
	bootstrapWait = 15 * time.Second
	dialTimeout   = 3 * time.Second

	// connectTimeout is how long a connection may take to come about. An attempt that began while packets were lost asks
	// again more and more rarely; a new one reaches an API server that is back at once.
	connectTimeout = 10 * time.Second
)

func newClient(ctx context.Context, cfg *config.Config) (*kubernetes.Clientset, error) {
	rest, err := restConfig(cfg.Client)
	if err != nil {
		return nil, err
	}
	if err := checkBootstrap(ctx, rest.Host, cfg.Node.ServiceCIDRs, os.Getenv, bootstrapWait); err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return nil, fmt.Errorf("API client: %w", err)
	}
	return client, nil
}

func restConfig(cfg config.Client) (*rest.Config, error) {
	c, err := baseConfig(cfg)
	if err != nil {
		return nil, err
	}
	c.QPS, c.Burst = cfg.QPS, cfg.Burst
	c.ContentType = cfg.ContentType
	c.AcceptContentTypes = cmp.Or(cfg.AcceptContentTypes, cfg.ContentType+",application/json")
	c.UserAgent = "sluice/" + version()
	c.Dial = (&net.Dialer{Timeout: connectTimeout}).DialContext
	return c, nil
}

func baseConfig(cfg config.Client) (*rest.Config, error) {
	if cfg.Kubeconfig == "" && cfg.Master == "" {
		c, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("nothing says where Services come from: give --kubeconfig, --master or --manifest-dir, or run in a pod")
		}
		if err != nil {
			return nil, fmt.Errorf("in-cluster configuration: %w", err)
		}
		return c, nil
	}
	c, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: cfg.Kubeconfig},
		&clientcmd.ConfigOverrides{ClusterInfo: clientcmdapi.Cluster{Server: cfg.Master}},
	).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return c, nil
}

// checkBootstrap says whether the API server is reached through a ClusterIP that nobody serves. It is this proxy that
// would have to serve it, so waiting would be in vain.
func checkBootstrap(ctx context.Context, host string, serviceCIDRs []netip.Prefix, env func(string) string, wait time.Duration) error {
	target, err := url.Parse(host)
	if err != nil || !isClusterIP(target.Hostname(), serviceCIDRs, env) {
		return nil
	}
	limit := time.After(wait)
	for {
		err := dial(ctx, target.Host)
		if err == nil {
			klog.FromContext(ctx).Info("The API server is reached through a ClusterIP, which works only as long as somebody serves it", "address", target.Host)
			return nil
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		case <-limit:
			return fmt.Errorf("the API server's address %s is a ClusterIP, which nobody serves before this proxy does (%w); "+
				"the kubeconfig (without one, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT) must name an address that works without Services", target.Host, err)
		}
	}
}

func dial(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// isClusterIP tells whether host is known to be one. kubelet sets KUBERNETES_PORT_443_TCP_ADDR to the ClusterIP of the API
// server, also where a manifest sets KUBERNETES_SERVICE_HOST to something better.
func isClusterIP(host string, serviceCIDRs []netip.Prefix, env func(string) string) bool {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	return host == env("KUBERNETES_PORT_443_TCP_ADDR") ||
		slices.ContainsFunc(serviceCIDRs, func(p netip.Prefix) bool { return p.Contains(ip) })
}
