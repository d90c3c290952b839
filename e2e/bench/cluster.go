package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sluice-proxy/sluice/e2e/cluster/controlplane"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

const (
	user = "proxy" // whom both proxies authenticate as

	// workers is how many objects are written at a time.
	workers = 20
)

// apiAddr is where nodes reach the API server, in linkAPI; apiVIP is the ClusterIP of default/kubernetes.
var (
	apiAddr = netip.MustParseAddr("192.168.80.254")
	apiVIP  = lab.ServiceCIDR.Addr().Next()
)

const apiPort = 443 // of that Service

// cluster is a control plane and what it was told. It is not safe for concurrent use.
type cluster struct {
	dir        string
	ns         *lab.Namespace
	plane      *controlplane.ControlPlane
	api        kubernetes.Interface
	kubeconfig string

	load     load // that it has grown to
	shared   service
	services []service
	spare    *addresses
	turns    []int // services with endpoints, in the order of their changes
	turn     int
}

// newCluster starts a control plane that has nothing but the Service with many ports. The directory is its own.
func newCluster(ctx context.Context, dir, apiserver string, sharedPorts int) (*cluster, error) {
	c := &cluster{dir: dir, spare: newAddresses()}
	if err := c.start(ctx, apiserver); err != nil {
		return nil, errors.Join(err, c.close())
	}
	if err := c.populate(ctx, sharedPorts); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *cluster) start(ctx context.Context, apiserver string) (err error) {
	if c.ns, err = lab.NewNamespace(); err != nil {
		return err
	}
	if err := c.address(); err != nil {
		return err
	}
	c.plane, err = controlplane.Start(ctx, controlplane.Config{
		Dir:          c.dir,
		Namespace:    c.ns,
		Addr:         apiAddr,
		ServiceCIDRs: []netip.Prefix{lab.ServiceCIDR},
		APIServer:    apiserver,
		Users:        []string{user},
	})
	if err != nil {
		return err
	}
	rest := c.plane.RESTConfig()
	rest.ContentType = "application/vnd.kubernetes.protobuf"
	if c.api, err = kubernetes.NewForConfig(rest); err != nil {
		return err
	}
	config, err := c.plane.Kubeconfig(user)
	if err != nil {
		return err
	}
	c.kubeconfig = filepath.Join(c.dir, "kubeconfig")
	return os.WriteFile(c.kubeconfig, config, 0o600)
}

// address gives the API server an address that outlives the nodes' links.
func (c *cluster) address() error {
	lo, err := c.ns.Netlink().LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := c.ns.Netlink().AddrAdd(lo, &netlink.Addr{IPNet: netlink.NewIPNet(apiAddr.AsSlice())}); err != nil {
		return fmt.Errorf("add %v to lo: %w", apiAddr, err)
	}
	return nil
}

// populate creates what does not depend on the number of services.
func (c *cluster) populate(ctx context.Context, sharedPorts int) error {
	// Rights are not what is measured.
	_, err := c.api.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	node := nodeObject()
	created, err := c.api.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	created.Status = node.Status
	if _, err := c.api.CoreV1().Nodes().UpdateStatus(ctx, created, metav1.UpdateOptions{}); err != nil {
		return err
	}
	c.shared = service{name: sharedName, ports: manyPorts(sharedPorts), backends: c.newBackends(defaultEndpoints)}
	return c.create(ctx, &c.shared)
}

// newBackends are those of a Service.
func (c *cluster) newBackends(n int) []netip.Addr {
	var all []netip.Addr
	for range n {
		all = append(all, c.spare.take(all))
	}
	return all
}

// close ends the control plane.
func (c *cluster) close() error {
	var errs []error
	if c.plane != nil {
		errs = append(errs, c.plane.Stop())
	}
	if c.ns != nil {
		errs = append(errs, c.ns.Close())
	}
	return errors.Join(errs...)
}

// grow creates Services until there are as many as a load has.
func (c *cluster) grow(ctx context.Context, l load) error {
	old, n := len(c.services), l.services
	c.load = l
	c.plan(n)
	group, creating := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for i := old; i < n; i++ {
		group.Go(func() error { return c.create(creating, &c.services[i]) })
	}
	return group.Wait()
}

// plan makes up Services until there are n, and mixes their turns, in the same way in each run.
func (c *cluster) plan(n int) {
	for i := len(c.services); i < n; i++ {
		s := service{name: serviceName(i), ports: onePort()}
		if hasEndpoints(i) {
			s.backends = c.newBackends(c.load.endpoints)
			c.turns = append(c.turns, i)
		}
		c.services = append(c.services, s)
	}
	slices.Sort(c.turns)
	mix := rand.New(rand.NewPCG(0, uint64(n)))
	mix.Shuffle(len(c.turns), func(i, j int) { c.turns[i], c.turns[j] = c.turns[j], c.turns[i] })
}

// create creates a Service with its EndpointSlice and learns its ClusterIP.
func (c *cluster) create(ctx context.Context, s *service) error {
	object, err := c.api.CoreV1().Services(namespace).Create(ctx, s.object(), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if s.vip, err = netip.ParseAddr(object.Spec.ClusterIP); err != nil {
		return fmt.Errorf("ClusterIP of %s: %w", s.name, err)
	}
	if object.Spec.Type == corev1.ServiceTypeLoadBalancer {
		object.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: sharedIP.String()}}
		if _, err := c.api.CoreV1().Services(namespace).UpdateStatus(ctx, object, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	_, err = c.api.DiscoveryV1().EndpointSlices(namespace).Create(ctx, s.slice(), metav1.CreateOptions{})
	return err
}

// change is a Service, one of whose endpoints has been replaced.
type change struct {
	service service
	added   netip.Addr
}

// nextChange replaces an endpoint of the service whose turn it is; the API server does not know yet.
func (c *cluster) nextChange() change {
	s := &c.services[c.turns[c.turn%len(c.turns)]]
	c.turn++
	added := c.spare.take(s.backends)
	c.spare.give(s.backends[0])
	s.backends = append(slices.Clone(s.backends[1:]), added)
	return change{service: *s, added: added}
}

// write tells the API server, and says how long it took to agree. It is safe for concurrent use.
func (c *cluster) write(ctx context.Context, ch change) (time.Duration, error) {
	start := time.Now()
	_, err := c.api.DiscoveryV1().EndpointSlices(namespace).Update(ctx, ch.service.slice(), metav1.UpdateOptions{})
	return time.Since(start), err
}
