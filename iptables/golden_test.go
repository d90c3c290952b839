package iptables

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sample is a snapshot whose rules are kept as a file, to be read by people and loaded by kernels.
type sample struct {
	name string
	cfg  Config
	snap *proxy.Snapshot
}

func samples(f family) []sample {
	plain := f.node()

	careful := f.node()
	careful.NodePorts = proxy.NodePortAddrs{Addrs: f.addrs([]string{nodeIP, "192.168.0.2"}), Localhost: true}
	careful.PodSource = proxy.PodSource{Kind: proxy.PodSourceInterfacePrefix, Interface: "cali"}

	var crowd []service
	for i := range 60 {
		crowd = append(crowd, numbered(i*5, remotePod))
	}
	web := exposed("externalLocal")
	web.ranges, web.health = []string{"192.0.2.0/24", "203.0.113.0/29"}, 32000
	dead := web
	dead.local, dead.remote = nil, nil
	missed := web
	missed.local, missed.internalLocal = nil, true
	sticky := exposed("cluster")
	sticky.affinity = 3 * time.Hour

	return []sample{
		{"cluster-ip", Config{DropInvalid: true}, snapshot(plain,
			service{name: "dns", clusterIP: "10.96.0.10", port: 53, protocol: proxy.UDP, local: []string{localPod}, remote: []string{remotePod}},
			service{name: "sctp", clusterIP: "10.96.0.11", port: 7, protocol: proxy.SCTP, remote: []string{remotePod}},
		)},
		{"policies", Config{}, snapshot(plain, exposed("cluster"))},
		{"policies-local", Config{}, snapshot(careful, web)},
		{"refused", Config{}, snapshot(plain, dead)},
		{"none-local", Config{}, snapshot(careful, missed)},
		{"affinity", Config{}, snapshot(plain, sticky)},
		{"large-pool", Config{}, snapshot(plain, service{name: "large", clusterIP: "10.96.0.1", local: many("10.1.0.", 3), remote: many("10.1.1.", 37)})},
		{"tree", Config{}, snapshot(plain, crowd...)},
		{"counted", Config{DropInvalid: true, counts: true}, snapshot(careful, exposed("cluster"))},
	}
}

func (s sample) kernel(t *testing.T) *kernel {
	t.Helper()
	k := newKernel(s.snap.Family())
	mustApply(t, newDataplane(s.cfg, k), s.snap)
	return k
}

func TestGolden(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		for _, s := range samples(f) {
			t.Run(s.name, func(t *testing.T) {
				k := s.kernel(t)
				checkGraph(t, k)
				file := filepath.Join("testdata", s.name+"-"+s.snap.Family().String()+".golden")
				if *update {
					if err := os.MkdirAll("testdata", 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(file, []byte(k.Dump()), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(file)
				if err != nil {
					t.Fatalf("%v (make it with -update)", err)
				}
				if diff := cmp.Diff(string(want), k.Dump()); diff != "" {
					t.Errorf("%s (-want +got):\n%s", file, diff)
				}
			})
		}
	})
}
