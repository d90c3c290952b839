package track

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// inputOf is the batch's input of that name; it fails if there is none.
func inputOf(t *testing.T, b Batch, name string) policy.Input {
	t.Helper()
	for _, in := range b.Inputs {
		if in.Name == serviceName(name) {
			return in
		}
	}
	t.Fatalf("no input for %s in %v", name, changed(b))
	return policy.Input{}
}

func addressesOf(in policy.Input) []string {
	var list []string
	for _, s := range in.Slices {
		for _, e := range s.Endpoints {
			list = append(list, e.Addr.String())
		}
	}
	return list
}

func TestOrderOfArrivalDoesNotMatter(t *testing.T) {
	a, b := New(Config{}), New(Config{})
	a.SetService(newService("svc"))
	a.SetEndpointSlice(newSlice("slice", "svc", "10.0.0.1"))
	b.SetEndpointSlice(newSlice("slice", "svc", "10.0.0.1"))
	if pending(b) {
		t.Error("a slice without a Service is pending")
	}
	b.SetService(newService("svc"))
	if !pending(a) || !pending(b) {
		t.Error("nothing is pending")
	}
	diff(t, "batch", a.Take(), b.Take())
	if got := a.Take(); got.Inputs != nil {
		t.Errorf("a second Take has %v", changed(got))
	}
}

func TestManyEventsAreOneInput(t *testing.T) {
	tr := New(Config{})
	for i := range 5 {
		tr.SetService(newService("svc", func(s *corev1.Service) { s.Spec.Ports[0].Port = int32(80 + i) }))
		tr.SetEndpointSlice(newSlice("slice", "svc", fmt.Sprintf("10.0.0.%d", i)))
	}
	batch := tr.Take()
	diff(t, "changed", []string{"svc"}, changed(batch))
	in := inputOf(t, batch, "svc")
	if in.Service.Ports[0].Port != 84 {
		t.Errorf("port %d, want that of the last update", in.Service.Ports[0].Port)
	}
	diff(t, "endpoints", []string{"10.0.0.4"}, addressesOf(in))
}

func TestEventsWithoutEffect(t *testing.T) {
	reordered := func(s *discoveryv1.EndpointSlice) {
		s.Endpoints[0], s.Endpoints[1] = s.Endpoints[1], s.Endpoints[0]
		s.Ports[0], s.Ports[1] = s.Ports[1], s.Ports[0]
	}
	slice := func(change ...func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
		s := newSlice("slice", "svc", "10.0.0.1", "10.0.0.2")
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: ptr("dns"), Port: ptr(int32(53)), Protocol: ptr(corev1.ProtocolUDP)})
		for _, c := range change {
			c(s)
		}
		return s
	}
	for name, event := range map[string]func(*Tracker){
		"the same Service": func(tr *Tracker) { tr.SetService(newService("svc")) },
		"labels and annotations": func(tr *Tracker) {
			tr.SetService(newService("svc", func(s *corev1.Service) {
				s.Labels, s.Annotations = map[string]string{"a": "b"}, map[string]string{"c": "d"}
			}))
		},
		"fields that nobody reads": func(tr *Tracker) {
			tr.SetService(newService("svc", func(s *corev1.Service) {
				s.Spec.Selector, s.ResourceVersion = map[string]string{"a": "b"}, "7"
				s.Spec.Ports[0].TargetPort.IntVal = 9
				s.Spec.IPFamilyPolicy = ptr(corev1.IPFamilyPolicyPreferDualStack)
			}))
		},
		"the same slice":           func(tr *Tracker) { tr.SetEndpointSlice(slice()) },
		"a slice in another order": func(tr *Tracker) { tr.SetEndpointSlice(slice(reordered)) },
		"labels of a slice": func(tr *Tracker) {
			tr.SetEndpointSlice(slice(func(s *discoveryv1.EndpointSlice) { s.Labels["a"] = "b" }))
		},
		"targets and zones of endpoints": func(tr *Tracker) {
			tr.SetEndpointSlice(slice(func(s *discoveryv1.EndpointSlice) {
				s.Endpoints[0].TargetRef, s.Endpoints[0].Zone, s.Endpoints[0].Hostname = &corev1.ObjectReference{Name: "pod"}, ptr("a"), ptr("h")
			}))
		},
		"an unknown slice goes":   func(tr *Tracker) { tr.DeleteEndpointSlice("ns", "other") },
		"an unknown Service goes": func(tr *Tracker) { tr.DeleteService(serviceName("other")) },
		"a headless Service comes": func(tr *Tracker) {
			tr.SetService(newService("other", func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }))
		},
		"a slice of no Service comes": func(tr *Tracker) { tr.SetEndpointSlice(newSlice("other", "other", "10.0.0.1")) },
		"nothing":                     func(tr *Tracker) { tr.SetService(nil); tr.SetEndpointSlice(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			tr := New(Config{})
			tr.SetService(newService("svc"))
			tr.SetEndpointSlice(slice())
			before := inputOf(t, tr.Take(), "svc")
			pending(tr)
			event(tr)
			if pending(tr) {
				t.Error("something is pending")
			}
			stats := tr.Stats()
			if stats.ServicesPending != 0 || stats.EndpointsPending != 0 {
				t.Errorf("stats: %+v", stats)
			}
			tr.SetService(newService("svc", func(s *corev1.Service) { s.Spec.Ports[0].Port = 81 }))
			after := inputOf(t, tr.Take(), "svc")
			if len(after.Slices) != 1 || after.Slices[0] != before.Slices[0] {
				t.Error("the slice has a new pointer")
			}
		})
	}
}

func TestEffectiveChanges(t *testing.T) {
	for name, event := range map[string]func(*Tracker){
		"load-balancer status": func(tr *Tracker) {
			tr.SetService(newService("svc", func(s *corev1.Service) {
				s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.1"}}
			}))
		},
		"becomes ExternalName": func(tr *Tracker) {
			tr.SetService(newService("svc", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }))
		},
		"goes to another proxy": func(tr *Tracker) {
			tr.SetService(newService("svc", func(s *corev1.Service) { s.Labels = map[string]string{labelServiceProxyName: "x"} }))
		},
		"Service goes":     func(tr *Tracker) { tr.DeleteService(serviceName("svc")) },
		"slice goes":       func(tr *Tracker) { tr.DeleteEndpointSlice("ns", "slice") },
		"endpoint comes":   func(tr *Tracker) { tr.SetEndpointSlice(newSlice("slice", "svc", "10.0.0.1", "10.0.0.2")) },
		"all endpoints go": func(tr *Tracker) { tr.SetEndpointSlice(newSlice("slice", "svc")) },
		"another slice":    func(tr *Tracker) { tr.SetEndpointSlice(newSlice("slice-2", "svc", "10.0.0.2")) },
		"endpoint unready": func(tr *Tracker) {
			s := newSlice("slice", "svc", "10.0.0.1")
			s.Endpoints[0].Conditions.Ready = ptr(false)
			tr.SetEndpointSlice(s)
		},
		"endpoint terminates": func(tr *Tracker) {
			s := newSlice("slice", "svc", "10.0.0.1")
			s.Endpoints[0].Conditions.Terminating = ptr(true)
			tr.SetEndpointSlice(s)
		},
		"slice becomes headless": func(tr *Tracker) {
			s := newSlice("slice", "svc", "10.0.0.1")
			s.Labels[corev1.IsHeadlessService] = ""
			tr.SetEndpointSlice(s)
		},
		"slice loses its type": func(tr *Tracker) {
			s := newSlice("slice", "svc", "10.0.0.1")
			s.AddressType = discoveryv1.AddressTypeFQDN
			tr.SetEndpointSlice(s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			tr := New(Config{Logger: silent})
			tr.SetService(newService("svc"))
			tr.SetEndpointSlice(newSlice("slice", "svc", "10.0.0.1"))
			tr.Take()
			pending(tr)
			event(tr)
			if !pending(tr) {
				t.Error("nothing is pending")
			}
			stats := tr.Stats()
			if stats.ServicesPending+stats.EndpointsPending != 1 {
				t.Errorf("stats: %+v", stats)
			}
			diff(t, "changed", []string{"svc"}, changed(tr.Take()))
		})
	}
}

func TestChangesThatAreUndoneAreNotPending(t *testing.T) {
	tr := New(Config{})
	tr.SetService(newService("svc"))
	tr.SetEndpointSlice(newSlice("slice", "svc", "10.0.0.1"))
	before := inputOf(t, tr.Take(), "svc")
	tr.SetService(newService("svc", func(s *corev1.Service) { s.Spec.Ports[0].Port = 81 }))
	tr.SetEndpointSlice(newSlice("slice", "svc", "10.0.0.2"))
	tr.SetEndpointSlice(newSlice("other", "svc", "10.0.0.3"))
	if s := tr.Stats(); s.ServicesPending != 1 || s.EndpointsPending != 2 {
		t.Errorf("stats: %+v", s)
	}
	tr.SetService(newService("svc"))
	tr.SetEndpointSlice(newSlice("slice", "svc", "10.0.0.1"))
	tr.DeleteEndpointSlice("ns", "other")
	if s := tr.Stats(); s.ServicesPending != 0 || s.EndpointsPending != 0 {
		t.Errorf("stats: %+v", s)
	}
	diff(t, "changed", []string(nil), changed(tr.Take()))

	tr.SetEndpointSlice(newSlice("other", "svc", "10.0.0.3"))
	after := inputOf(t, tr.Take(), "svc")
	if after.Service != before.Service || after.Slices[1] != before.Slices[0] {
		t.Error("equal content has a new pointer")
	}
}

// While a Service is away, what happens to its slices must not get lost, even if nobody saw it go.
func TestSliceChangesWhileItsServiceIsAway(t *testing.T) {
	tr := New(Config{})
	tr.SetService(newService("svc"))
	tr.SetEndpointSlice(newSlice("slice", "svc", "10.0.0.1"))
	tr.Take()
	tr.DeleteService(serviceName("svc"))
	tr.SetEndpointSlice(newSlice("slice", "svc", "10.0.0.2"))
	tr.SetService(newService("svc"))
	diff(t, "endpoints", []string{"10.0.0.2"}, addressesOf(inputOf(t, tr.Take(), "svc")))
}

func TestSliceThatMovesChangesBothServices(t *testing.T) {
	tr := New(Config{})
	tr.SetService(newService("one"))
	tr.SetService(newService("two"))
	tr.SetEndpointSlice(newSlice("slice", "one", "10.0.0.1"))
	tr.Take()
	tr.SetEndpointSlice(newSlice("slice", "two", "10.0.0.1"))
	batch := tr.Take()
	diff(t, "changed", []string{"one", "two"}, changed(batch))
	diff(t, "endpoints of one", []string(nil), addressesOf(inputOf(t, batch, "one")))
	diff(t, "endpoints of two", []string{"10.0.0.1"}, addressesOf(inputOf(t, batch, "two")))
}

func TestSliceThatMovesTwiceChangesTheFirstService(t *testing.T) {
	tr := New(Config{})
	tr.SetService(newService("one"))
	tr.SetService(newService("three"))
	tr.SetEndpointSlice(newSlice("slice", "one", "10.0.0.1"))
	tr.Take()
	tr.SetEndpointSlice(newSlice("slice", "two", "10.0.0.1"))
	tr.SetEndpointSlice(newSlice("slice", "three", "10.0.0.1"))
	diff(t, "changed", []string{"one", "three"}, changed(tr.Take()))
}

func TestEndpointThatMovesBetweenSlicesNeverDisappears(t *testing.T) {
	tr := New(Config{})
	tr.SetService(newService("svc"))
	tr.SetEndpointSlice(newSlice("a", "svc", "10.0.0.1"))
	tr.SetEndpointSlice(newSlice("b", "svc", "10.0.0.2"))
	tr.Take()
	tr.SetEndpointSlice(newSlice("a", "svc"))
	tr.SetEndpointSlice(newSlice("b", "svc", "10.0.0.2", "10.0.0.1"))
	diff(t, "endpoints", []string{"10.0.0.1", "10.0.0.2"}, addressesOf(inputOf(t, tr.Take(), "svc")))
}

func TestServiceThatGoesAwayLeavesAnEmptyInput(t *testing.T) {
	tr := New(Config{})
	tr.SetService(newService("svc"))
	tr.SetEndpointSlice(newSlice("slice", "svc", "10.0.0.1"))
	tr.Take()
	tr.DeleteService(serviceName("svc"))
	diff(t, "batch", Batch{Inputs: []policy.Input{{Name: serviceName("svc")}}}, tr.Take())
}

func TestEventsAreCounted(t *testing.T) {
	tr := New(Config{Logger: silent})
	for range 2 {
		tr.SetService(newService("svc"))
		tr.SetEndpointSlice(newSlice("slice", "svc", "10.0.0.1"))
	}
	tr.DeleteService(serviceName("svc"))
	tr.DeleteEndpointSlice("ns", "slice")
	tr.SetEndpointSlice(newSlice("slice", "")) // of no Service: not counted
	tr.DeleteEndpointSlice("ns", "slice")
	if s := tr.Stats(); s.ServiceEvents != 3 || s.EndpointSliceEvents != 3 {
		t.Errorf("stats: %+v", s)
	}
}

func TestTriggers(t *testing.T) {
	start := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	slice := func(name, service, trigger string, address string) *discoveryv1.EndpointSlice {
		s := newSlice(name, service, address)
		s.Annotations[corev1.EndpointsLastChangeTriggerTime] = trigger
		return s
	}
	stamp := func(seconds int) string { return at(seconds).Format(time.RFC3339Nano) }
	for _, c := range []struct {
		name   string
		events func(*Tracker)
		want   []time.Time
	}{
		{"one", func(tr *Tracker) { tr.SetEndpointSlice(slice("a", "svc", stamp(1), "10.0.0.1")) }, []time.Time{at(1)}},
		{"added and updated", func(tr *Tracker) {
			tr.SetEndpointSlice(slice("a", "svc", stamp(2), "10.0.0.1"))
			tr.SetEndpointSlice(slice("a", "svc", stamp(1), "10.0.0.2"))
		}, []time.Time{at(1), at(2)}},
		{"two Services", func(tr *Tracker) {
			tr.SetEndpointSlice(slice("a", "svc", stamp(2), "10.0.0.1"))
			tr.SetEndpointSlice(slice("b", "two", stamp(1), "10.0.0.2"))
		}, []time.Time{at(1), at(2)}},
		{"no annotation", func(tr *Tracker) { tr.SetEndpointSlice(newSlice("a", "svc", "10.0.0.1")) }, nil},
		{"bad annotation", func(tr *Tracker) { tr.SetEndpointSlice(slice("a", "svc", "yesterday", "10.0.0.1")) }, nil},
		{"before the start", func(tr *Tracker) { tr.SetEndpointSlice(slice("a", "svc", stamp(-1), "10.0.0.1")) }, nil},
		{"without a change", func(tr *Tracker) {
			tr.SetEndpointSlice(newSlice("a", "svc", "10.0.0.1"))
			tr.SetEndpointSlice(slice("a", "svc", stamp(1), "10.0.0.1"))
		}, nil},
		{"added and deleted", func(tr *Tracker) {
			tr.SetEndpointSlice(slice("a", "svc", stamp(1), "10.0.0.1"))
			tr.DeleteEndpointSlice("ns", "a")
		}, nil},
		{"added, deleted, added", func(tr *Tracker) {
			tr.SetEndpointSlice(slice("a", "svc", stamp(1), "10.0.0.1"))
			tr.DeleteEndpointSlice("ns", "a")
			tr.SetEndpointSlice(slice("a", "svc", stamp(2), "10.0.0.1"))
		}, []time.Time{at(2)}},
		{"deleted", func(tr *Tracker) { tr.DeleteEndpointSlice("ns", "a") }, nil},
		{"of no Service", func(tr *Tracker) { tr.SetEndpointSlice(slice("a", "nobody", stamp(1), "10.0.0.1")) }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := New(Config{Started: start})
			tr.SetService(newService("svc"))
			tr.SetService(newService("two"))
			c.events(tr)
			diff(t, "triggers", c.want, tr.Take().Triggers)
			diff(t, "triggers of the next Take", []time.Time(nil), tr.Take().Triggers)
		})
	}
}

func TestTriggersFromBeforeTheTrackerAreIgnoredByDefault(t *testing.T) {
	tr := New(Config{})
	tr.SetService(newService("svc"))
	s := newSlice("slice", "svc", "10.0.0.1")
	s.Annotations[corev1.EndpointsLastChangeTriggerTime] = time.Now().Add(-time.Hour).Format(time.RFC3339Nano)
	tr.SetEndpointSlice(s)
	diff(t, "triggers", []time.Time(nil), tr.Take().Triggers)
}

func TestFaultsAreLoggedOncePerChange(t *testing.T) {
	var log logs
	tr := New(Config{Logger: log.logger(), ExternalIPs: true})
	faulty := func(text string) *corev1.Service {
		return newService("svc", func(s *corev1.Service) { s.Spec.ExternalIPs = []string{text} })
	}
	tr.SetService(faulty("x1"))
	log.expect(t, "x1")
	tr.SetService(faulty("x1"))
	log.expect(t)
	tr.SetService(faulty("x2"))
	log.expect(t, "x2")
	tr.SetService(newService("svc"))
	log.expect(t)
	tr.SetService(faulty("x2"))
	log.expect(t, "x2")
	tr.DeleteService(serviceName("svc"))
	tr.SetService(faulty("x2"))
	log.expect(t, "x2")

	fqdn := newSlice("slice", "svc", "10.0.0.1")
	fqdn.AddressType = discoveryv1.AddressTypeFQDN
	tr.SetEndpointSlice(fqdn)
	log.expect(t, "FQDN")
	tr.SetEndpointSlice(fqdn)
	log.expect(t)
	half := newSlice("slice", "svc", "10.0.0.1", "bad")
	tr.SetEndpointSlice(half)
	log.expect(t, "bad")
	tr.SetEndpointSlice(half)
	log.expect(t)
	tr.Take()
	log.expect(t)

	tr.SetService(newService("a\nb"))
	log.expect(t, "not valid")
	tr.SetService(newService("a\nb"))
	log.expect(t)
}

func TestManyFaultsAreOneShortLine(t *testing.T) {
	var log logs
	tr := New(Config{Logger: log.logger()})
	tr.SetService(newService("svc", func(s *corev1.Service) {
		for i := range 10_000 {
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: strings.Repeat("x", 10_000), Port: int32(-i)})
		}
	}))
	if len(log.lines) != 1 || len(log.lines[0]) > 1000 {
		t.Fatalf("%d lines of log, the first of %d bytes", len(log.lines), len(log.lines[0]))
	}
	log.expect(t, "and 9995 more")
}

func TestNothingIsLeftOfObjectsThatAreGone(t *testing.T) {
	tr := New(Config{Logger: silent})
	for round := range 3 {
		for i := range 20 {
			name := fmt.Sprintf("svc-%d", i)
			tr.SetService(newService(name))
			tr.SetEndpointSlice(newSlice("a-"+name, name, "10.0.0.1"))
			tr.SetEndpointSlice(newSlice("b-"+name, name, "10.0.0.2", "bad"))
			tr.SetEndpointSlice(newSlice("b-"+name, "svc-0", "10.0.0.2"))
		}
		bad := newSlice("bad", "svc-0")
		bad.AddressType = discoveryv1.AddressTypeFQDN
		tr.SetEndpointSlice(bad)
		tr.SetService(newService("Bad"))
		if round == 1 {
			tr.Take()
		}
		for i := range 20 {
			name := fmt.Sprintf("svc-%d", i)
			if i%2 == 0 {
				tr.DeleteService(serviceName(name))
			}
			tr.DeleteEndpointSlice("ns", "a-"+name)
			tr.DeleteEndpointSlice("ns", "b-"+name)
			tr.DeleteService(serviceName(name))
		}
		tr.DeleteEndpointSlice("ns", "bad")
		tr.DeleteService(serviceName("Bad"))
		tr.Take()
	}
	if len(tr.services)+len(tr.slices)+len(tr.servicesBefore)+len(tr.slicesBefore)+len(tr.triggers) != 0 {
		t.Errorf("left: %d Services, %d slices, %d and %d pending, %d triggers",
			len(tr.services), len(tr.slices), len(tr.servicesBefore), len(tr.slicesBefore), len(tr.triggers))
	}
}

func TestConcurrentUse(t *testing.T) {
	tr := New(Config{Logger: silent})
	known := map[proxy.ServiceName]policy.Input{}
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 200 {
				name := fmt.Sprintf("svc-%d", i%7)
				tr.SetService(newService(name))
				tr.SetEndpointSlice(newSlice(fmt.Sprintf("%s-%d", name, w), name, fmt.Sprintf("10.0.%d.%d", w, i)))
				tr.Stats()
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	note := func() {
		for _, in := range tr.Take().Inputs {
			known[in.Name] = in
		}
	}
	for running := true; running; {
		select {
		case <-tr.Pending():
		case <-done:
			running = false
		}
		note()
	}
	for i := range 7 {
		in := known[serviceName(fmt.Sprintf("svc-%d", i))]
		if in.Service == nil || len(in.Slices) != 4 {
			t.Errorf("svc-%d: %v", i, in)
		}
	}
}
