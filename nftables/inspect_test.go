package nftables

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest"
)

// inspected are the differences that a dataplane finds which has written nothing.
func inspected(t *testing.T, f inFamily, want *proxy.Snapshot) []string {
	t.Helper()
	return proxytest.Inspected(t, made(t, f), want)
}

// made is a dataplane as the mode makes it.
func made(t *testing.T, f inFamily) *dataplane {
	t.Helper()
	d, err := NewMode(Config{DropInvalid: true}).New(proxy.Family(f))
	if err != nil {
		t.Fatal(err)
	}
	return d.(*dataplane)
}

func TestKernelInspectionNamesEachHarm(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		d := newTestDataplane(f)
		want := snapshot(f.node(), crowd(30)...)
		mustApply(t, d, want)
		table := map[proxy.Family]string{proxy.IPv4: "ip sluice", proxy.IPv6: "ip6 sluice"}[proxy.Family(f)]
		vip := f.addr("10.96.1.8") // of s7, which has no affinity, 7 backends, and no frontend but this one
		slotOf := func(i int) string { return fmt.Sprintf("%s . tcp . 80 . 0:%d", vip, i) }
		for _, test := range []struct {
			name string
			nft  string // commands; $T is the table
			want []string
		}{
			{"rule deleted", "flush chain $T nat-prerouting", []string{"altered chain nat-prerouting"}},
			{"rule added", "insert rule $T filter-forward drop", []string{"altered chain filter-forward"}},
			{"chain added", "add chain $T other", []string{"foreign chain other"}},
			{"element deleted", fmt.Sprintf("delete element $T cluster-ips { %s }", vip), []string{fmt.Sprintf("missing set cluster-ips { %s }", vip)}},
			{"element added", fmt.Sprintf("add element $T cluster-ips { %s }", f.addr("192.0.2.7")),
				[]string{fmt.Sprintf("foreign set cluster-ips { %s }", f.addr("192.0.2.7"))}},
			{"verdict altered", fmt.Sprintf("delete element $T frontends { %s . tcp . 80 }; add element $T frontends { %s . tcp . 80 : drop }", vip, vip),
				[]string{fmt.Sprintf("altered map frontends { %s . tcp . 80 }", vip)}},
			{"backend altered", fmt.Sprintf("delete element $T endpoints { %s }; add element $T endpoints { %s : %s . 99 }", slotOf(2), slotOf(2), f.addr("10.1.9.9")),
				[]string{fmt.Sprintf("altered map endpoints { %s }", slotOf(2))}},
			{"backend deleted", fmt.Sprintf("delete element $T endpoints { %s }", slotOf(0)), []string{fmt.Sprintf("missing map endpoints { %s }", slotOf(0))}},
			{"set deleted", "flush chain $T nat-postrouting; delete set $T hairpin", []string{"altered chain nat-postrouting", "missing set hairpin"}},
			{"set added", "add set $T more { type inet_service; }", []string{"foreign set more"}},
			{"base chain deleted", "flush chain $T learn-output; delete chain $T learn-output", []string{"missing chain learn-output"}},
			{"policy altered", "add chain $T filter-input { policy drop; }", []string{"altered chain filter-input"}},
			{"table dormant", "add table $T { flags dormant; }", []string{"altered table sluice"}},
			{"table deleted", "delete table $T", []string{"missing table sluice"}},
		} {
			if found := inspected(t, f, want); len(found) > 0 {
				t.Fatalf("before %s: %q", test.name, found)
			}
			runNFT(t, strings.ReplaceAll(test.nft, "$T", table))
			if diff := cmp.Diff(test.want, inspected(t, f, want)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.name, diff)
			}
			d.Resync(test.name)
			mustApply(t, d, want)
			d.now = func() time.Time { return time.Now().Add(2 * idleTime) }
			mustApply(t, d, want) // a chain that was added goes
			d.now = time.Now
		}
	})
}

// TestKernelInspectionIgnoresHistory has slots, numbers and chains that a fresh start would not have.
func TestKernelInspectionIgnoresHistory(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		d := newTestDataplane(f)
		services := crowd(30)
		for i := range 20 {
			for j := range services {
				services[j].backends = backendsFrom((i*13+j*7)%50, (i*5+j)%9)
			}
			if i%4 == 3 {
				services = services[1:]
			}
			want := snapshot(f.node(), services...)
			mustApply(t, d, want)
			if found := inspected(t, f, want); len(found) > 0 {
				t.Fatalf("after change %d: %q", i, found)
			}
		}
		if len(d.held.idle) == 0 {
			t.Error("no chain is left that nothing leads to, so this test shows nothing")
		}
	})
}

func TestKernelInspectionNamesTheService(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		d := newTestDataplane(f)
		want := snapshot(f.node(), service{name: "web", clusterIP: "10.96.1.1", backends: backendsFrom(1, 2)})
		mustApply(t, d, snapshot(f.node()))
		found, err := d.Inspect(t.Context(), want)
		if err != nil || len(found) < 4 {
			t.Fatalf("%v, %v", found, err)
		}
		for _, x := range found {
			if !strings.HasPrefix(x.Object, "chain lb-") && x.Service != "ns/web" && x.Service != "ns/web:p" {
				t.Errorf("%+v", x)
			}
		}
	})
}

// shown are the objects, each with what is wrong with it.
func shown(t *testing.T, d *dataplane, want *proxy.Snapshot, name string) (objects, wrong []string) {
	t.Helper()
	for _, sp := range want.All() {
		if sp.Name.Name != name {
			continue
		}
		list, err := d.Show(t.Context(), want, sp, sp.Frontends)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list {
			objects = append(objects, o.Name+": "+o.Holds)
			if o.Differs != nil {
				wrong = append(wrong, o.Differs.Kind.String()+" "+o.Name)
			}
		}
	}
	slices.Sort(wrong)
	return objects, wrong
}

func TestKernelShowsWhatImplementsAService(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		d := newTestDataplane(f)
		services := crowd(30)
		for i := range 6 { // slots and numbers are not those of a fresh start
			for j := range services {
				services[j].backends = backendsFrom((i*13+j*7)%50, 1+(i*5+j)%9)
			}
			mustApply(t, d, snapshot(f.node(), services...))
		}
		want := snapshot(f.node(), services...)
		for _, s := range services {
			if objects, wrong := shown(t, d, want, s.name); len(objects) < 4 || len(wrong) > 0 {
				t.Errorf("%s: %q of %q", s.name, wrong, objects)
			}
		}
		objects, _ := shown(t, d, want, "s7")
		vip := f.addr("10.96.1.8")
		for _, part := range []string{fmt.Sprintf("map services { %s . tcp . 80 }: jump lb-", vip), fmt.Sprintf("map endpoints { %s . tcp . 80 . 0:0", vip), "chain lb-"} {
			if !slices.ContainsFunc(objects, func(o string) bool { return strings.HasPrefix(o, part) }) {
				t.Errorf("no %q in %q", part, objects)
			}
		}
		table := map[proxy.Family]string{proxy.IPv4: "ip sluice", proxy.IPv6: "ip6 sluice"}[proxy.Family(f)]
		for _, test := range []struct {
			name string
			nft  string // commands; $T is the table
			want []string
		}{
			{"rule deleted", "flush chain $T nat-prerouting", []string{"altered chain nat-prerouting"}},
			{"element deleted", fmt.Sprintf("delete element $T cluster-ips { %s }", vip), []string{fmt.Sprintf("missing set cluster-ips { %s }", vip)}},
			{"verdict altered", fmt.Sprintf("delete element $T frontends { %s . tcp . 80 }; add element $T frontends { %s . tcp . 80 : drop }", vip, vip),
				[]string{fmt.Sprintf("altered map frontends { %s . tcp . 80 }", vip)}},
			{"backend deleted", fmt.Sprintf("delete element $T endpoints { %s . tcp . 80 . 0:0 }", vip), []string{fmt.Sprintf("missing map endpoints { %s . tcp . 80 . 0:0 }", vip)}},
			{"another Service's element deleted", fmt.Sprintf("delete element $T cluster-ips { %s }", f.addr("10.96.1.9")), nil},
			{"set deleted", "flush chain $T nat-postrouting; delete set $T hairpin", []string{"altered chain nat-postrouting", "missing set hairpin"}},
			{"table deleted", "delete table $T", []string{"missing table sluice"}},
		} {
			runNFT(t, strings.ReplaceAll(test.nft, "$T", table))
			if _, wrong := shown(t, d, want, "s7"); !slices.Equal(test.want, wrong) {
				t.Errorf("%s: got %q, want %q", test.name, wrong, test.want)
			}
			d.Resync(test.name)
			mustApply(t, d, want)
		}
	})
}

func TestKernelInspectionDoesNotBelieveComments(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		d, want := made(t, f), snapshot(f.node(), crowd(30)...)
		mustApply(t, d, want)
		family := string(nft.Family(proxy.Family(f)))
		rules, err := nft.Rules(t.Context(), family, Table, natPrerouting)
		if err != nil {
			t.Fatal(err)
		}
		for handle, rule := range rules {
			_, comment, _ := strings.Cut(rule, " comment ")
			runNFT(t, "replace", "rule", family, Table, natPrerouting, "handle", fmt.Sprint(handle), "accept", "comment", comment)
		}
		if diff := cmp.Diff([]string{"altered chain " + natPrerouting}, proxytest.Inspected(t, d, want)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		d.Resync("an audit found differences")
		mustApply(t, d, want)
		if found := proxytest.Inspected(t, d, want); len(found) > 0 {
			t.Errorf("after the repair: %q", found)
		}
		if is, err := nft.Rules(t.Context(), family, Table, natPrerouting); err != nil || !slices.Equal(slices.Sorted(maps.Values(is)), slices.Sorted(maps.Values(rules))) {
			t.Errorf("after the repair: %v, %v, want %v", is, err, rules)
		}
	})
}
