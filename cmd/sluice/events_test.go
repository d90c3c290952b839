package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/report"
)

// recordedEvents are those that a recorder brings to the API server while it is told what tell does.
func recordedEvents(t *testing.T, tell func(r *recorder)) []eventsv1.Event {
	client := fake.NewClientset()
	r := newRecorder(client, "n1", func(name proxy.ServiceName) types.UID { return types.UID("uid of " + name.String()) })
	ctx, cancel := context.WithCancel(t.Context())
	r.start(ctx)
	tell(r)
	synctest.Wait()
	list, err := client.EventsV1().Events(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	r.stop()
	<-time.After(time.Hour) // the broadcaster's goroutines end
	return list.Items
}

func TestEventsSayWhatTheyRegard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := recordedEvents(t, func(r *recorder) {
			r.node(report.Event{Reason: "Starting", Action: "StartKubeProxy", Note: "100% ready"})
			r.service(proxy.ServiceName{Namespace: "ns", Name: "web"}, report.Event{Warning: true, Reason: "NotServed", Action: "Apply", Note: "no"})
		})
		type event struct{ Type, Kind, Namespace, Name, UID, Reason, Action, Note, Controller string }
		seen := map[event]bool{}
		for _, e := range got {
			seen[event{e.Type, e.Regarding.Kind, e.Regarding.Namespace, e.Regarding.Name, string(e.Regarding.UID), e.Reason, e.Action, e.Note, e.ReportingController}] = true
		}
		want := map[event]bool{
			{"Normal", "Node", "", "n1", "n1", "Starting", "StartKubeProxy", "100% ready", "sluice"}:   true,
			{"Warning", "Service", "ns", "web", "uid of ns/web", "NotServed", "Apply", "no", "sluice"}: true,
		}
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestEventsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := recordedEvents(t, func(r *recorder) {
			for i := range 1000 {
				r.service(proxy.ServiceName{Namespace: "ns", Name: string(rune('a' + i%26))}, report.Event{Reason: "R", Action: "A", Note: "n"})
			}
		})
		if len(got) == 0 || len(got) > eventsAtOnce {
			t.Errorf("got %d Events, want up to %d", len(got), eventsAtOnce)
		}
	})
}
