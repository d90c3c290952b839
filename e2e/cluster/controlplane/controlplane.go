// Package controlplane runs a Kubernetes control plane for tests: a real etcd and a real
// kube-apiserver in a network namespace of a lab. There are no controllers, no scheduler and no
// kubelet: whoever uses it plays their parts.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sluice-proxy/sluice/e2e/process"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

const (
	port       = "6443"
	adminToken = "admin-token"

	// A slow etcd stands still for etcdPause, then runs for etcdTurn.
	etcdPause = 900 * time.Millisecond
	etcdTurn  = 30 * time.Millisecond
)

var startLimit = lab.Patient(2 * time.Minute)

// Config says where a control plane lives. All fields but Users and Args are required.
type Config struct {
	Dir          string         // for data, keys and logs
	Namespace    *lab.Namespace // in which both programs run
	Addr         netip.Addr     // where nodes reach the API server, an address of that namespace
	ServiceCIDRs []netip.Prefix // of one or both families, the primary one first
	APIServer    string         // path of the program
	Users        []string       // who may authenticate, with no right yet; see Kubeconfig
	Args         []string       // more flags of the API server
}

// ControlPlane is a running etcd and an API server that may be stopped and started.
type ControlPlane struct {
	cfg       Config
	cert      []byte
	log       *os.File
	etcd      *process.Process
	apiserver *process.Process // nil while stopped
}

// Start starts both programs and waits until the API server is ready.
func Start(ctx context.Context, cfg Config) (*ControlPlane, error) {
	c := &ControlPlane{cfg: cfg}
	if err := c.prepare(); err != nil {
		return nil, fmt.Errorf("prepare control plane: %w", err)
	}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// Log is the path of what both programs wrote.
func (c *ControlPlane) Log() string { return c.path("log") }

func (c *ControlPlane) path(name string) string { return filepath.Join(c.cfg.Dir, name) }

func (c *ControlPlane) prepare() error {
	addrs := []netip.Addr{c.cfg.Addr}
	for _, p := range c.cfg.ServiceCIDRs {
		addrs = append(addrs, p.Masked().Addr().Next()) // the Service default/kubernetes
	}
	var err error
	if c.cert, err = writePKI(c.cfg.Dir, addrs); err != nil {
		return err
	}
	tokens := adminToken + `,admin,admin,"system:masters"` + "\n"
	for _, u := range c.cfg.Users {
		tokens += fmt.Sprintf("%s,%s,%s\n", token(u), u, u)
	}
	if err := os.WriteFile(c.path("tokens.csv"), []byte(tokens), 0o600); err != nil {
		return err
	}
	c.log, err = os.Create(c.Log())
	return err
}

func token(user string) string { return user + "-token" }

func (c *ControlPlane) start(ctx context.Context) error {
	// The namespace is ours, so fixed ports on its loopback interface are free.
	var err error
	c.etcd, err = process.Start(c.cfg.Namespace, c.log, "etcd",
		"--data-dir", c.path("etcd"),
		"--listen-client-urls", "http://127.0.0.1:2379",
		"--advertise-client-urls", "http://127.0.0.1:2379",
		"--listen-peer-urls", "http://127.0.0.1:2380",
		"--initial-advertise-peer-urls", "http://127.0.0.1:2380",
		"--initial-cluster", "default=http://127.0.0.1:2380",
		"--log-level", "error",
	)
	if err != nil {
		return err
	}
	return c.StartAPIServer(ctx)
}

// StartAPIServer starts the API server, which must be stopped, and waits until it is ready.
func (c *ControlPlane) StartAPIServer(ctx context.Context) error {
	cidrs := make([]string, 0, len(c.cfg.ServiceCIDRs))
	for _, p := range c.cfg.ServiceCIDRs {
		cidrs = append(cidrs, p.String())
	}
	var err error
	c.apiserver, err = process.Start(c.cfg.Namespace, c.log, c.cfg.APIServer, append([]string{
		"--etcd-servers", "http://127.0.0.1:2379",
		"--advertise-address", c.cfg.Addr.String(),
		"--secure-port", port,
		"--tls-cert-file", c.path("tls.crt"),
		"--tls-private-key-file", c.path("tls.key"),
		"--token-auth-file", c.path("tokens.csv"),
		"--authorization-mode", "RBAC",
		"--disable-admission-plugins", "ServiceAccount",
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", c.path("sa.key"),
		"--service-account-signing-key-file", c.path("sa.key"),
		"--service-cluster-ip-range", strings.Join(cidrs, ","),
	}, c.cfg.Args...)...)
	if err != nil {
		return err
	}
	return c.awaitReady(ctx)
}

func (c *ControlPlane) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	client, err := kubernetes.NewForConfig(c.RESTConfig())
	if err != nil {
		return err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		_, notReady := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		if notReady == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-c.apiserver.Done():
			return fmt.Errorf("kube-apiserver ended (%w), see %s", c.apiserver.Err(), c.Log())
		case <-ctx.Done():
			return fmt.Errorf("kube-apiserver is not ready (%w), see %s", notReady, c.Log())
		}
	}
}

// StopAPIServer ends the API server without grace, as a crash does: watches break. etcd keeps the state.
func (c *ControlPlane) StopAPIServer() {
	if c.apiserver != nil {
		c.apiserver.Kill()
		c.apiserver = nil
	}
}

// PauseEtcd stops etcd from running until ResumeEtcd, as a machine without time for it does. Requests wait.
func (c *ControlPlane) PauseEtcd() { c.etcd.Signal(syscall.SIGSTOP) }

// ResumeEtcd lets etcd go on.
func (c *ControlPlane) ResumeEtcd() { c.etcd.Signal(syscall.SIGCONT) }

// SlowEtcd lets etcd run only a small part of the time until it is told to go on, as a machine with a slow disk or
// without processor time does. Requests are late; of some the API server says that it cannot wait any longer.
func (c *ControlPlane) SlowEtcd() (goOn func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer c.ResumeEtcd()
		for {
			for _, turn := range []struct {
				act  func()
				long time.Duration
			}{{c.PauseEtcd, etcdPause}, {c.ResumeEtcd, etcdTurn}} {
				turn.act()
				select {
				case <-stop:
					return
				case <-time.After(turn.long):
				}
			}
		}
	}()
	return func() { close(stop); <-done }
}

// Stop ends both programs.
func (c *ControlPlane) Stop() error {
	c.StopAPIServer()
	if c.etcd != nil {
		c.etcd.Kill()
	}
	return c.log.Close()
}

// RESTConfig is for an administrator who is in another network namespace than the control plane.
func (c *ControlPlane) RESTConfig() *rest.Config {
	return &rest.Config{
		Host:            c.url(),
		BearerToken:     adminToken,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.cert},
		Dial:            c.dial,
		QPS:             -1,
	}
}

func (c *ControlPlane) dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	err = c.cfg.Namespace.Do(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

func (c *ControlPlane) url() string { return "https://" + net.JoinHostPort(c.cfg.Addr.String(), port) }

// Kubeconfig is the file with which one of Config.Users reaches the API server over the network.
func (c *ControlPlane) Kubeconfig(user string) ([]byte, error) {
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["lab"] = &clientcmdapi.Cluster{Server: c.url(), CertificateAuthorityData: c.cert}
	cfg.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: token(user)}
	cfg.Contexts["lab"] = &clientcmdapi.Context{Cluster: "lab", AuthInfo: user}
	cfg.CurrentContext = "lab"
	return clientcmd.Write(*cfg)
}
