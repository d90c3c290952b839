package manifests

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"

	"github.com/sluice-proxy/sluice/e2e/cluster/controlplane"
	"github.com/sluice-proxy/sluice/e2e/suite"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

const (
	serviceAccount   = "sluice"
	accountNamespace = "kube-system"
)

// world is a cluster with one node.
type world struct {
	*lab.Lab
	shipped
	overlay string
	plane   *suite.Cluster
	api     kubernetes.Interface
	dynamic dynamic.Interface
	audit   string // the API server's audit log
}

// newWorld makes a cluster in which nothing is installed, and reads the overlay that will be.
func newWorld(t *testing.T, overlay string) *world {
	w := &world{Lab: lab.Start(t, lab.Config{}), shipped: loadShipped(t, overlay), overlay: overlay}
	w.startPlane(t)
	w.plane.CreateNode(t, suite.Node(nodeName, "zone-a", lab.NodeIP, lab.NodeCIDR))
	eventually(t, "namespace "+accountNamespace+" exists", func() error {
		_, err := w.api.CoreV1().Namespaces().Get(t.Context(), accountNamespace, metav1.GetOptions{})
		return err
	})
	return w
}

// auditPolicy lets the API server note what Sluice asks for, once it is known whether it may.
var auditPolicy = fmt.Sprintf(`apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, users: ["system:serviceaccount:%s:%s"]}
- {level: None}
`, accountNamespace, serviceAccount)

// startPlane runs the control plane on the remote node.
func (w *world) startPlane(t *testing.T) {
	dir := t.TempDir()
	policy := filepath.Join(dir, "audit-policy.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	w.audit = filepath.Join(dir, "audit.log")
	w.plane = suite.StartCluster(t, w.Lab, controlplane.Config{
		Dir:   dir,
		Users: []string{kubeProxyUser},
		Args:  []string{"--allow-privileged", "--audit-policy-file", policy, "--audit-log-path", w.audit},
	})
	w.api = w.plane.API
	var err error
	if w.dynamic, err = dynamic.NewForConfig(w.plane.RESTConfig()); err != nil {
		t.Fatal(err)
	}
}

// resource is where the API server keeps objects of the kind of o.
func (w *world) resource(o *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	groups, err := restmapper.GetAPIGroupResources(w.api.Discovery())
	if err != nil {
		return nil, err
	}
	kind := o.GroupVersionKind()
	mapping, err := restmapper.NewDiscoveryRESTMapper(groups).RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, err
	}
	return w.dynamic.Resource(mapping.Resource).Namespace(o.GetNamespace()), nil
}

// create creates an object as kubectl does, which says no to fields that do not exist.
func (w *world) create(ctx context.Context, o *unstructured.Unstructured, dryRun ...string) error {
	resource, err := w.resource(o)
	if err != nil {
		return err
	}
	_, err = resource.Create(ctx, o, metav1.CreateOptions{DryRun: dryRun, FieldValidation: metav1.FieldValidationStrict})
	return err
}

// install creates what the overlay installs.
func (w *world) install(t *testing.T) {
	t.Helper()
	for _, o := range kustomized(t, w.overlay) {
		if err := w.create(t.Context(), o); err != nil {
			t.Fatalf("%s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
}

// placeholder is what an operator replaces in the ConfigMap.
const placeholder = "https://API-SERVER:6443"

// main is the main container, with the ConfigMap and the service account's token in their places. The operator has named
// server as the address of the API server.
func (w *world) main(t *testing.T, server string) container {
	t.Helper()
	dir := t.TempDir()
	kubeconfig := w.config.Data["kubeconfig"]
	if strings.Count(kubeconfig, placeholder) != 1 {
		t.Fatalf("the kubeconfig has no %s:\n%s", placeholder, kubeconfig)
	}
	files := map[string][]byte{
		"kubeconfig": []byte(strings.NewReplacer(placeholder, server, "/var/run/secrets/kubernetes.io/serviceaccount", dir).Replace(kubeconfig)),
		"ca.crt":     w.plane.RESTConfig().CAData,
		"token":      w.token(t),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	spec := w.daemonSet.Spec.Template.Spec.Containers[0]
	env := w.env(t, spec)
	env["CLUSTER_CIDR"] = lab.ClusterCIDR.String()
	return container{spec: spec, env: env, dir: dir}
}

func (w *world) token(t *testing.T) []byte {
	t.Helper()
	request, err := w.api.CoreV1().ServiceAccounts(accountNamespace).
		CreateToken(t.Context(), w.daemonSet.Spec.Template.Spec.ServiceAccountName, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return []byte(request.Status.Token)
}

// init is the init container.
func (w *world) init(t *testing.T) container {
	t.Helper()
	spec := w.daemonSet.Spec.Template.Spec.InitContainers[0]
	return container{spec: spec, env: w.env(t, spec), args: []string{"--conntrack-max-per-core=0"}}
}

// server is the address at which the API server can be reached without Services.
func (w *world) server() string { return w.plane.RESTConfig().Host }

// request is a line of the audit log.
type request struct {
	Verb      string
	ObjectRef *struct{ APIGroup, Resource string }

	ResponseStatus struct{ Code int }
}

// right is what a ClusterRole must allow for the request.
func (r request) right() string {
	if r.ObjectRef == nil {
		return r.Verb
	}
	return r.Verb + " " + r.ObjectRef.APIGroup + "/" + r.ObjectRef.Resource
}

// answered are the requests of Sluice until now; with a verb, those of that verb.
func (w *world) answered(t *testing.T, verb string) []request {
	t.Helper()
	text, err := os.ReadFile(w.audit)
	if err != nil {
		t.Fatal(err)
	}
	var all []request
	for line := range bytes.Lines(text) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // it is being written
		}
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("audit log: %v: %s", err, line)
		}
		if verb == "" || r.Verb == verb {
			all = append(all, r)
		}
	}
	return all
}
