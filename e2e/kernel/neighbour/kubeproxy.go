package neighbour

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-proxy/sluice/e2e/process"
	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// Mode is one of kube-proxy's.
type Mode string

// The modes. Modes iptables and ipvs use backend nft, but for the one with another name.
const (
	IPTables       Mode = "iptables"
	IPTablesLegacy Mode = "iptables-legacy"
	NFTables       Mode = "nftables"
	IPVS           Mode = "ipvs"
)

// backend is the one of iptables that is used.
func (m Mode) backend() string {
	if m == IPTablesLegacy {
		return "legacy"
	}
	return "nft"
}

// name is what kube-proxy calls the mode.
func (m Mode) name() string { return strings.TrimSuffix(string(m), "-legacy") }

// KubeProxy is a kube-proxy in the namespace of a lab's node. It implements proxytest.Neighbour. It is not safe for concurrent
// use.
type KubeProxy struct {
	binary string
	mode   Mode
	lab    *lab.Lab
	dir    string
	api    *api
	url    string

	config  string // of the process
	only4   bool   // it serves IPv4 alone
	process *process.Process
	log     logBuffer
	ticks   int
}

// Start makes a kube-proxy that ends with the test. It has no rules until it is told to serve something.
func Start(t testing.TB, l *lab.Lab, binary string, mode Mode) *KubeProxy {
	t.Helper()
	k := &KubeProxy{binary: binary, mode: mode, lab: l, dir: t.TempDir(), api: newAPI()}
	if _, err := os.Stat(binary); err != nil {
		t.Fatalf("%v: make apiserver builds it", err)
	}
	if err := k.linkTools(); err != nil {
		t.Fatal(err)
	}
	listener, err := l.Node.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k.url = "http://" + listener.Addr().String()
	server := &http.Server{Handler: k.api, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() {
		k.Stop()
		_ = server.Close()
		if t.Failed() {
			t.Logf("the end of kube-proxy's log:\n%s", k.log.end())
		}
	})
	return k
}

// linkTools makes a folder in which plain iptables and its kin are of the backend: kube-proxy takes what it finds.
func (k *KubeProxy) linkTools() error {
	program, err := exec.LookPath("xtables-" + k.mode.backend() + "-multi")
	if err != nil {
		return err
	}
	failing, err := exec.LookPath("false")
	if err != nil {
		return err
	}
	errs := []error{os.Mkdir(filepath.Join(k.dir, withoutIPv6), 0o700)}
	for _, suffix := range []string{"", "-save", "-restore"} {
		errs = append(errs,
			os.Symlink(program, filepath.Join(k.dir, "iptables"+suffix)), os.Symlink(program, filepath.Join(k.dir, "ip6tables"+suffix)),
			os.Symlink(failing, filepath.Join(k.dir, withoutIPv6, "ip6tables"+suffix)))
	}
	return errors.Join(errs...)
}

// withoutIPv6 is a folder with programs by which kube-proxy finds that the node has no IPv6. Mode ipvs starts dozens of programs
// for each family at each step, which takes an emulated processor seconds.
const withoutIPv6 = "without-ipv6"

// Stop ends the process. Its rules stay, and the next Serve starts another one.
func (k *KubeProxy) Stop() {
	if k.process != nil {
		k.process.Kill()
		k.process = nil
	}
}

// Freeze keeps kube-proxy from writing anything more until it ends. Programs that it has started go on.
func (k *KubeProxy) Freeze() { k.process.Signal(syscall.SIGSTOP) }

// Serve implements proxytest.Neighbour. A Service of our own, told of after all others, shows in the rules when kube-proxy has
// come that far. Mode ipvs writes one object after the other, in no order: it has come to the end when it says so, in a metric.
func (k *KubeProxy) Serve(ctx context.Context, s proxytest.State) error {
	k.ticks++
	mark, endpoint := k.mark(s.Family, 98), k.mark(s.Family, 99)
	service, slice := markers(s.Family, mark, endpoint)
	k.api.set("nodes", s.Node)
	k.api.set("servicecidrs", serviceCIDRs(s.Config)...)
	k.api.set("endpointslices", append(objects(s.Slices), slice)...)
	k.api.set("services", append(objects(s.Services), service)...)
	if err := k.ensure(s.Config, k.mode == IPVS && s.Family == proxy.IPv4); err != nil {
		return err
	}
	before, seen, err := k.await(ctx, s.Family, mark, endpoint)
	if err != nil || k.mode != IPVS {
		return err
	}
	ended, err := k.awaitEnd(ctx, s.Family, before)
	if err == nil && !ended.After(seen) {
		return k.Serve(ctx, s) // was it this sync, or the one before? The next one will tell.
	}
	return err
}

// markPort is of the Service that tells one call from all others.
const markPort = 9

// mark is an address that tells this call from all others.
func (k *KubeProxy) mark(f proxy.Family, second byte) netip.Addr {
	return lab.In(f, netip.AddrFrom4([4]byte{10, second, byte(k.ticks >> 8), byte(k.ticks)}))
}

func markers(f proxy.Family, at, endpoint netip.Addr) (*corev1.Service, *discoveryv1.EndpointSlice) {
	family, addressType := corev1.IPv4Protocol, discoveryv1.AddressTypeIPv4
	if f == proxy.IPv6 {
		family, addressType = corev1.IPv6Protocol, discoveryv1.AddressTypeIPv6
	}
	meta := metav1.ObjectMeta{Namespace: "zz-neighbour", Name: "mark"} // the last by name
	service := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, ClusterIP: at.String(), ClusterIPs: []string{at.String()}, IPFamilies: []corev1.IPFamily{family},
		Ports: []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: markPort}},
	}}
	meta.Labels = map[string]string{discoveryv1.LabelServiceName: "mark"}
	name, protocol, port := "", corev1.ProtocolTCP, int32(markPort)
	slice := &discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: addressType,
		Ports:     []discoveryv1.EndpointPort{{Name: &name, Protocol: &protocol, Port: &port}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{endpoint.String()}}},
	}
	return service, slice
}

func serviceCIDRs(c proxytest.Node) []object {
	if c.NoServiceCIDR {
		return nil
	}
	var texts []string
	for _, f := range proxy.Families {
		texts = append(texts, lab.PrefixIn(f, lab.ServiceCIDR).String())
	}
	return []object{&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: texts}}}
}

// ensure runs kube-proxy with a configuration, in IPv4 alone if its programs for IPv6 are to fail.
func (k *KubeProxy) ensure(c proxytest.Node, only4 bool) error {
	config, err := json.Marshal(k.configuration(c))
	if err != nil || string(config) == k.config && k.only4 == only4 && k.process != nil {
		return err
	}
	k.Stop()
	k.config, k.only4 = string(config), only4
	path := k.dir + ":" + os.Getenv("PATH")
	if only4 {
		path = filepath.Join(k.dir, withoutIPv6) + ":" + path
	}
	files := map[string]string{
		"config": k.config,
		"kubeconfig": `{"apiVersion": "v1", "kind": "Config", "current-context": "c",
			"clusters": [{"name": "c", "cluster": {"server": "` + k.url + `"}}], "contexts": [{"name": "c", "context": {"cluster": "c"}}]}`,
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(k.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	k.process, err = process.Start(k.lab.Node.Namespace, &k.log, "env", "PATH="+path,
		k.binary, "--config", filepath.Join(k.dir, "config"), "-v", "2")
	return err
}

// await returns when the rules show a Service and its endpoint: the time when that was seen, and the last one when it was not so yet.
func (k *KubeProxy) await(ctx context.Context, f proxy.Family, service, endpoint netip.Addr) (before, seen time.Time, err error) {
	seen = time.Now()
	err = k.poll(ctx, func() error {
		before, seen = seen, time.Now()
		shown, err := k.show(ctx, f, service, endpoint)
		if err == nil && !shown {
			err = fmt.Errorf("kube-proxy's rules do not show %v and %v", service, endpoint)
		}
		return err
	})
	return before, seen, err
}

// poll looks at kube-proxy until what is looked for is there.
func (k *KubeProxy) poll(ctx context.Context, look func() error) error {
	patience := time.Minute
	if k.mode == IPVS {
		patience = 4 * time.Minute // it starts programs for each Service
	}
	limit := time.After(lab.Patient(patience))
	pause := time.NewTicker(lab.Patient(20 * time.Millisecond))
	defer pause.Stop()
	for {
		err := look()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.process.Done():
			return fmt.Errorf("kube-proxy ended: %w\n%s", k.process.Err(), k.log.end())
		case <-limit:
			return fmt.Errorf("%w:\n%s\nits goroutines:\n%s", err, k.log.end(), k.goroutines(ctx))
		case <-pause.C:
		}
	}
}

// awaitEnd waits for the end of a sync that had not ended at some time.
func (k *KubeProxy) awaitEnd(ctx context.Context, f proxy.Family, since time.Time) (ended time.Time, err error) {
	err = k.poll(ctx, func() (err error) {
		if ended, err = k.lastSync(ctx, f); err == nil && !ended.After(since) {
			err = fmt.Errorf("kube-proxy's last sync ended at %v, which is before %v", ended, since)
		}
		return err
	})
	return ended, err
}

// goroutines are those of kube-proxy that have to do with rules.
func (k *KubeProxy) goroutines(ctx context.Context) string {
	all, err := k.ask(ctx, "/debug/pprof/goroutine?debug=2")
	if err != nil {
		return err.Error()
	}
	stacks := slices.DeleteFunc(strings.Split(all, "\n\n"), func(stack string) bool {
		return !strings.Contains(stack, "k8s.io/kubernetes/pkg/proxy/")
	})
	return strings.Join(stacks, "\n\n")
}

// lastSync is when kube-proxy says that its last sync of a family ended.
func (k *KubeProxy) lastSync(ctx context.Context, f proxy.Family) (time.Time, error) {
	metrics, err := k.ask(ctx, "/metrics")
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(metrics) {
		value, ok := strings.CutPrefix(line, fmt.Sprintf("kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=%q} ", f))
		if !ok {
			continue
		}
		seconds, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		return time.UnixMicro(int64(seconds * 1e6)), err
	}
	return time.Time{}, errors.New("kube-proxy does not say when its last sync ended")
}

// ask gets what kube-proxy tells of itself.
func (k *KubeProxy) ask(ctx context.Context, path string) (string, error) {
	client := http.Client{Transport: &http.Transport{DialContext: k.lab.Node.DialContext, DisableKeepAlives: true}, Timeout: lab.Patient(10 * time.Second)}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:10249"+path, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	return string(content), err
}

// show tells whether a Service and its endpoint are in the kernel.
func (k *KubeProxy) show(ctx context.Context, f proxy.Family, service, endpoint netip.Addr) (bool, error) {
	if k.mode == IPVS {
		return k.balances(ctx, f, service, endpoint)
	}
	rules, err := k.rules(f)
	return strings.Contains(rules, service.String()) && strings.Contains(rules, endpoint.String()), err
}

// balances tells whether a virtual server has a real server. It asks the kernel for no more: a program, again and again, would keep
// an emulated processor busy, and /proc/net/ip_vs, which is read page by page, leaves out servers while other namespaces have some.
func (k *KubeProxy) balances(ctx context.Context, f proxy.Family, service, endpoint netip.Addr) (found bool, err error) {
	id := kernel.ID{Addr: netip.AddrPortFrom(service, markPort), Protocol: proxy.TCP}
	err = k.lab.Node.Do(func() error {
		servers, err := kernel.NewIPVS(f).Dests(ctx, []kernel.ID{id})
		found = slices.ContainsFunc(servers[id], func(l kernel.Load) bool { return l.Addr.Addr() == endpoint })
		return err
	})
	return found, err
}

// rules are where a Service and its endpoints show.
func (k *KubeProxy) rules(f proxy.Family) (string, error) {
	six := map[proxy.Family]string{proxy.IPv4: "", proxy.IPv6: "6"}[f]
	if k.mode == NFTables {
		return k.lab.Node.Run("nft", "list", "table", "ip"+six, "kube-proxy")
	}
	return k.lab.Node.Run("ip"+six+"tables-"+k.mode.backend()+"-save", "-t", "nat")
}

// logBuffer keeps the end of what is written. It is safe for concurrent use.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

const maxLog = 1 << 20

// Write implements io.Writer.
func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.text.Len() > maxLog {
		b.text.Next(maxLog / 2)
	}
	return b.text.Write(p)
}

func (b *logBuffer) end() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := b.text.String()
	return text[max(0, len(text)-4000):]
}
