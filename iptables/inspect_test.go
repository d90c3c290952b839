package iptables

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest"
)

// newInspected is a dataplane as the mode makes it for that backend.
func newInspected(ipt *xtables.Runner, cfg Config) *dataplane {
	d := newDataplane(cfg, ipt)
	d.inspector = ipt
	if ipt.Backend() == xtables.Legacy {
		d.none = nothingIn(longLeaf)
	}
	return d
}

// TestKernelInspectionKnowsAllRulesAgain has the kernel hold whatever rules there are.
func TestKernelInspectionKnowsAllRulesAgain(t *testing.T) {
	inKernels(t, func(t *testing.T, ipt *xtables.Runner, f family) {
		for _, s := range samples(f) {
			d := newInspected(ipt, s.cfg)
			mustApply(t, d, s.snap)
			if found := proxytest.Inspected(t, d, s.snap); len(found) > 0 {
				t.Errorf("%s: %q", s.name, found)
			}
		}
	})
}

func TestKernelInspectionNamesEachHarm(t *testing.T) {
	inKernels(t, func(t *testing.T, ipt *xtables.Runner, f family) {
		d := newInspected(ipt, Config{})
		want := snapshot(f.node(), exposed("externalLocal"), numbered(1))
		mustApply(t, d, want)
		target := "-j DNAT --to-destination " + f.port("192.0.2.9", 99).String()
		for _, test := range []struct {
			name string
			harm string // commands; $I is iptables
			want []string
		}{
			{"rule deleted", "$I -t filter -D SLUICE-FORWARD 1", []string{"missing table filter, rule -A SLUICE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT"}},
			{"rule added", "$I -t nat -A SLUICE-POSTROUTING -p tcp -j ACCEPT", []string{"foreign table nat, rule -A SLUICE-POSTROUTING -p tcp -j ACCEPT"}},
			{"rule altered", "$I -t filter -R SLUICE-FORWARD 1 -j DROP", []string{"altered table filter, rule -A SLUICE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT"}},
			{"rules in another order", "$I -t filter -D SLUICE-FORWARD 1; $I -t filter -A SLUICE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
				[]string{"altered table filter, chain SLUICE-FORWARD"}},
			{"chain added", "$I -t nat -N SLUICE-OTHER; $I -t nat -A SLUICE-OTHER -p tcp " + target, []string{"foreign table nat, chain SLUICE-OTHER"}},
			{"chain deleted", "$I -t filter -D FORWARD -j SLUICE-FORWARD -m comment --comment 'sluice: forwarded services'; $I -t filter -F SLUICE-FORWARD; $I -t filter -X SLUICE-FORWARD",
				[]string{"missing table filter, chain SLUICE-FORWARD", "missing table filter, rule -A FORWARD -m comment --comment \"sluice: forwarded services\" -j SLUICE-FORWARD"}},
			{"jump deleted", "$I -t nat -D PREROUTING 1", []string{`missing table nat, rule -A PREROUTING -m comment --comment "sluice: services" -j SLUICE-SERVICES`}},
			{"jump doubled", "$I -t nat -A PREROUTING -j SLUICE-SERVICES", []string{"foreign table nat, rule -A PREROUTING -j SLUICE-SERVICES"}},
			{"jump overtaken", "$I -t nat -N KUBE-SERVICES; $I -t nat -I PREROUTING -j KUBE-SERVICES", []string{"altered table nat, chain PREROUTING"}},
			{"shared chain deleted", "$I -t nat -F KUBE-MARK-MASQ; $I -t nat -X KUBE-MARK-MASQ", []string{"missing table nat, chain KUBE-MARK-MASQ"}},
			{"empty chain to which others lead", "$I -t nat -N SLUICE-OLD; $I -t nat -N OTHER; $I -t nat -A OTHER -j SLUICE-OLD", []string{}},
		} {
			if found := proxytest.Inspected(t, d, want); len(found) > 0 {
				t.Fatalf("before %s: %q", test.name, found)
			}
			run(t, "sh", "-ec", strings.ReplaceAll(test.harm, "$I", command(ipt, f)))
			if diff := cmp.Diff(test.want, proxytest.Inspected(t, d, want)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.name, diff)
			}
			d.Resync(test.name)
			mustApply(t, d, want)
		}
	})
}

func TestKernelInspectionNamesTheService(t *testing.T) {
	inKernels(t, func(t *testing.T, ipt *xtables.Runner, f family) {
		d := newInspected(ipt, Config{})
		mustApply(t, d, snapshot(f.node()))
		want := snapshot(f.node(), exposed("externalLocal"))
		found, err := d.Inspect(t.Context(), want)
		if err != nil || len(found) < 4 {
			t.Fatalf("%v, %v", found, err)
		}
		for _, x := range found {
			dispatch := strings.Contains(x.Object, "SLUICE-X-") // which leads to several Services in general
			if !strings.HasPrefix(x.Service, "ns/web") && !dispatch {
				t.Errorf("%+v", x)
			}
		}
	})
}

// shown are the objects, and what is wrong with them.
func shown(t *testing.T, d *dataplane, want *proxy.Snapshot, name string) (objects []proxy.Object, wrong []string) {
	t.Helper()
	wrong = []string{}
	for _, sp := range want.All() {
		if sp.Name.Name != name {
			continue
		}
		list, err := d.Show(t.Context(), want, sp, sp.Frontends)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list {
			objects = append(objects, o)
			if o.Differs != nil {
				wrong = append(wrong, o.Differs.Kind.String()+" "+o.Name)
			}
		}
	}
	slices.Sort(wrong)
	return objects, wrong
}

func TestKernelShowsWhatImplementsAService(t *testing.T) {
	inKernels(t, func(t *testing.T, ipt *xtables.Runner, f family) {
		d := newInspected(ipt, Config{})
		services := []service{exposed("externalLocal")}
		for i := range 40 {
			services = append(services, numbered(i, "10.1.2.1", "10.1.2.2"))
		}
		large := service{name: "large", clusterIP: "10.96.9.9", affinity: 10}
		for i := range 30 {
			large.remote = append(large.remote, fmt.Sprintf("10.1.3.%d", i+1))
		}
		services = append(services, large)
		want := snapshot(f.node(), services...)
		mustApply(t, d, want)
		for _, s := range services {
			objects, wrong := shown(t, d, want, s.name)
			if len(wrong) > 0 || len(objects) < 5 {
				t.Errorf("%s: %q of %v", s.name, wrong, objects)
			}
			if s.name == "svc3" {
				text := fmt.Sprint(objects)
				for _, part := range []string{"-A PREROUTING", f.port("10.1.2.1", 8080).String(), "ns/svc3"} {
					if !strings.Contains(text, part) {
						t.Errorf("no %q in %s", part, text)
					}
				}
				if strings.Contains(text, "ns/svc4") {
					t.Errorf("others are in %s", text)
				}
			}
		}
		for _, test := range []struct {
			harm string // commands; $I is iptables
			want []string
		}{
			{"$I -t nat -F SLUICE-POSTROUTING", []string{
				"missing table nat, rule -A SLUICE-POSTROUTING -j MARK --xor-mark 0x4000",
				"missing table nat, rule -A SLUICE-POSTROUTING -j MASQUERADE --random-fully",
				"missing table nat, rule -A SLUICE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
			}},
			{"$I -t nat -D PREROUTING 1", []string{`missing table nat, rule -A PREROUTING -m comment --comment "sluice: services" -j SLUICE-SERVICES`}},
			{"$I -t nat -N SLUICE-OTHER", []string{}}, // it is on nobody's way
		} {
			run(t, "sh", "-ec", strings.ReplaceAll(test.harm, "$I", command(ipt, f)))
			for _, name := range []string{"svc3", "large"} {
				if _, wrong := shown(t, d, want, name); !slices.Equal(wrong, test.want) {
					t.Errorf("%s: %s: got %q, want %q", test.harm, name, wrong, test.want)
				}
			}
			d.Resync(test.harm)
			mustApply(t, d, want)
		}
	})
}
