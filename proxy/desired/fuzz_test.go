package desired_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
	"github.com/sluice-proxy/sluice/proxy/track"
)

// FuzzObjects feeds any Service and EndpointSlice through the Tracker and the Builders of both
// families. Neither may panic, and nothing in a snapshot may say more than addresses, numbers and
// names: the names end up in the text of rules.
func FuzzObjects(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, service, slice []byte) {
		var svc corev1.Service
		var eps discoveryv1.EndpointSlice
		if json.Unmarshal(service, &svc) != nil || json.Unmarshal(slice, &eps) != nil {
			return
		}
		tracker := track.New(trackConfig)
		tracker.SetEndpointSlice(&eps)
		tracker.SetService(&svc)
		inputs := tracker.Take().Inputs
		for _, family := range proxy.Families {
			b := desired.NewBuilder(node(func(n *proxy.Node) { n.Family = family }))
			b.Update(inputs)
			for name, port := range b.Snapshot().All() {
				checkText(t, name.Namespace, name.Name, name.Port)
				checkAddresses(t, family, port)
			}
			if c := b.Conflicts(); len(c) != 0 {
				t.Errorf("a Service is in conflict with itself: %v", c)
			}
		}
		tracker.DeleteService(proxy.ServiceName{Namespace: svc.Namespace, Name: svc.Name})
		tracker.DeleteEndpointSlice(eps.Namespace, eps.Name)
		for _, in := range tracker.Take().Inputs {
			if in.Service != nil {
				t.Errorf("%v is still there", in.Name)
			}
		}
	})
}

// seeds are the pairs of files NAME.service.json and NAME.slice.json.
func seeds(f *testing.F) [][2][]byte {
	files, err := filepath.Glob(filepath.Join("testdata", "objects", "*.service.json"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	var pairs [][2][]byte
	for _, file := range files {
		var pair [2][]byte
		slice := file[:len(file)-len("service.json")] + "slice.json"
		for i, name := range []string{file, slice} {
			if pair[i], err = os.ReadFile(name); err != nil {
				f.Fatal(err)
			}
		}
		pairs = append(pairs, pair)
	}
	return pairs
}

func checkText(t *testing.T, names ...string) {
	for _, name := range names {
		if len(name) > 63 {
			t.Errorf("the name %q is too long", name)
		}
		for _, r := range name {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
				t.Errorf("the name %q has the character %q", name, r)
			}
		}
	}
}

func checkAddresses(t *testing.T, family proxy.Family, port *proxy.ServicePort) {
	for _, fe := range port.Frontends {
		if !family.Has(fe.Addr.Addr()) || fe.Addr.Addr().Zone() != "" || fe.Addr.Port() == 0 {
			t.Errorf("%v answers on %v", port.Name, fe.Addr)
		}
	}
	for _, pool := range []proxy.Pool{proxy.ClusterPool, proxy.LocalPool} {
		for _, b := range port.Backends(pool) {
			if !family.Has(b.Addr.Addr()) || b.Addr.Addr().Zone() != "" || b.Addr.Port() == 0 {
				t.Errorf("%v sends to %v", port.Name, b.Addr)
			}
		}
	}
	if port.Affinity < 0 {
		t.Errorf("%v has an affinity of %v", port.Name, port.Affinity)
	}
}
