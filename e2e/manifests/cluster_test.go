package manifests

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// The ClusterIP of the API server, and how kubelet tells it to every pod.
const (
	apiClusterIP  = "10.96.0.1"
	apiClusterURL = "https://" + apiClusterIP + ":443"
	apiVariable   = "KUBERNETES_PORT_443_TCP_ADDR"
)

// The steps need each other: what is installed first is used after.
func TestCluster(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fresh)
	for _, step := range []struct {
		name string
		do   func(*testing.T, *world)
	}{
		{"ObjectsAreAcceptedToTheLetter", objectsAreAccepted},
		{"OverlayTakesThePlaceOfKubeadmsKubeProxy", kubeadmOverlayIsInForce},
		{"NothingStartsUnconfigured", nothingStartsUnconfigured},
		{"ClusterIPThatNobodyServesIsAClearError", clusterIPIsAClearError},
		{"RealAddressServesAnEmptyKernel", realAddressServes},
		{"ClusterIPWorksWhileSomebodyServesIt", clusterIPWorks},
		{"ClusterRoleIsExactlyWhatIsUsed", clusterRoleIsUsed},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.do(t, w) }) {
			return
		}
	}
}

func objectsAreAccepted(t *testing.T, w *world) {
	strange := named(t, kustomized(t, fresh), "DaemonSet", "sluice")
	if err := unstructured.SetNestedField(strange.Object, true, "spec", "template", "spec", "hostNetwrok"); err != nil {
		t.Fatal(err)
	}
	if err := w.create(t.Context(), strange, metav1.DryRunAll); err == nil || !strings.Contains(err.Error(), "hostNetwrok") {
		t.Fatalf("an unknown field is accepted: %v", err)
	}
	w.wantAccepted(t, cleanup, cleanupObjects(t))
	for _, overlay := range overlays(t) {
		w.wantAccepted(t, overlay, kustomized(t, overlay))
	}
	w.wantAccepted(t, "the chart", charted(t, facts))
	w.wantAccepted(t, "the chart", charted(t, allValues))
	w.install(t)
}

// wantAccepted checks that the API server would create objects, and the pods that follow from them.
func (w *world) wantAccepted(t *testing.T, from string, all []*unstructured.Unstructured) {
	t.Helper()
	for _, o := range all {
		if err := w.create(t.Context(), o, metav1.DryRunAll); err != nil {
			t.Errorf("%s: %v", from, err)
		}
		if o.GetKind() != "DaemonSet" {
			continue
		}
		if err := w.create(t.Context(), podOf(t, o), metav1.DryRunAll); err != nil {
			t.Errorf("pod of %s: %v", from, err)
		}
	}
}

// podOf is what the controller makes of a DaemonSet.
func podOf(t *testing.T, daemonSet *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	template, found, err := unstructured.NestedMap(daemonSet.Object, "spec", "template")
	if err != nil || !found {
		t.Fatalf("no template: %v", err)
	}
	pod := &unstructured.Unstructured{Object: template}
	pod.SetAPIVersion("v1")
	pod.SetKind("Pod")
	pod.SetName(daemonSet.GetName() + "-pod")
	pod.SetNamespace(daemonSet.GetNamespace())
	return pod
}

func nothingStartsUnconfigured(t *testing.T, w *world) {
	w.init(t).start(t, w.Node).succeeds(t)
	c := w.main(t, w.server())
	c.env["CLUSTER_CIDR"] = w.config.Data["cluster-cidr"]
	if text := c.start(t, w.Node).fails(t); !strings.Contains(text, "--cluster-cidr") {
		t.Errorf("sluice says:\n%s", text)
	}

	r := w.main(t, placeholder).start(t, w.Node)
	eventually(t, "sluice says which address it cannot reach", func() error {
		if text := r.log(t); !strings.Contains(text, "API-SERVER") {
			return fmt.Errorf("it says:\n%s", text)
		}
		return nil
	})
	// A restart would not help.
	for _, p := range []*corev1.Probe{r.spec.StartupProbe, r.spec.LivenessProbe} {
		eventually(t, "alive without an API server", func() error { return r.passes(p) })
	}
	if r.passes(r.spec.ReadinessProbe) == nil {
		t.Error("ready without an API server")
	}
	r.stop(t)
}

func clusterIPIsAClearError(t *testing.T, w *world) {
	c := w.main(t, apiClusterURL)
	c.env[apiVariable] = apiClusterIP
	text := c.start(t, w.Node).fails(t)
	for _, part := range []string{apiClusterIP, "ClusterIP", "kubeconfig"} {
		if !strings.Contains(text, part) {
			t.Errorf("the error does not speak of %q:\n%s", part, text)
		}
	}
	if rules := w.rules(t); hasRulesOfSluice(rules) {
		t.Errorf("rules of a proxy that did not start:\n%s", rules)
	}
}

func realAddressServes(t *testing.T, w *world) {
	r := w.main(t, w.server()).start(t, w.Node)
	r.awaitReady(t)
	w.wantAPIServer(t, w.Node)
	w.wantAPIServer(t, w.Pods[0])
	r.wantNoComplaints(t)
	r.stop(t)
	w.wantAPIServer(t, w.Node)
}

// wantAPIServer checks that a host reaches the API server as pods do.
func (w *world) wantAPIServer(t *testing.T, from *lab.Host) {
	t.Helper()
	client := clientOn(from)
	client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	eventually(t, from.Name+" reaches "+apiClusterURL, func() error {
		response, err := client.Get(apiClusterURL + "/readyz")
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz: %s", response.Status)
		}
		return nil
	})
}

// clusterIPWorks: rules of an earlier run lead to the API server.
func clusterIPWorks(t *testing.T, w *world) {
	c := w.main(t, apiClusterURL)
	c.env[apiVariable] = apiClusterIP
	r := c.start(t, w.Node)
	r.awaitReady(t)
	if text := r.log(t); !strings.Contains(text, "works only as long as somebody serves it") {
		t.Errorf("no warning in:\n%s", text)
	}
	r.stop(t)
}

// clusterRoleIsUsed lets Sluice do everything that it ever asks the API server for: watch, list where watches cannot
// begin with what is there, and tell Events, for the first time and again.
func clusterRoleIsUsed(t *testing.T, w *world) {
	for _, watchList := range []string{"true", "false"} {
		c := w.main(t, w.server())
		c.env["KUBE_FEATURE_WatchListClient"] = watchList
		r := c.start(t, w.Node)
		r.awaitReady(t)
		w.conflictTwice(t)
		r.wantNoComplaints(t)
		r.stop(t)
	}
	var used, granted []string
	for _, r := range w.answered(t, "") {
		if r.ResponseStatus.Code == http.StatusForbidden {
			t.Errorf("the ClusterRole does not allow %s", r.right())
		}
		// The API server itself lets everyone ask for its version and the like.
		if r.ObjectRef != nil {
			used = append(used, r.right())
		}
	}
	slices.Sort(used)
	used = slices.Compact(used)
	for _, rule := range w.role.Rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					granted = append(granted, verb+" "+group+"/"+resource)
				}
			}
		}
	}
	slices.Sort(granted)
	if diff := cmp.Diff(used, granted); diff != "" {
		t.Errorf("rights of the ClusterRole (-used +granted):\n%s", diff)
	}
}

// conflictTwice makes an Event happen twice: two Services claim an address, no longer do, and do again.
func (w *world) conflictTwice(t *testing.T) {
	t.Helper()
	services := w.api.CoreV1().Services(metav1.NamespaceDefault)
	told := func() int { return len(w.answered(t, "patch")) }
	before := told()
	for _, name := range []string{"first", "second"} {
		service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{
			ExternalIPs: []string{"192.0.2.1"},
			Ports:       []corev1.ServicePort{{Port: servicePort}},
		}}
		if _, err := services.Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	w.awaitConflicts(t, 1)
	for conflicts, address := range []string{"192.0.2.2", "192.0.2.1"} {
		patch := fmt.Appendf(nil, `{"spec":{"externalIPs":[%q]}}`, address)
		if _, err := services.Patch(t.Context(), "second", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		w.awaitConflicts(t, conflicts)
	}
	eventually(t, "the Event is told again", func() error {
		if told() == before {
			return errors.New("no Event was patched")
		}
		return nil
	})
	for _, name := range []string{"first", "second"} {
		if err := services.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	w.awaitConflicts(t, 0)
}

func (w *world) awaitConflicts(t *testing.T, n int) {
	t.Helper()
	want := fmt.Sprintf("\nsluice_frontend_conflicts{ip_family=\"IPv4\"} %d\n", n)
	eventually(t, strings.TrimSpace(want), func() error {
		response, err := clientOn(w.Node).Get("http://127.0.0.1:10249/metrics")
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		if err == nil && !bytes.Contains(body, []byte(want)) {
			err = errors.New("that is not what /metrics says")
		}
		return err
	})
}
