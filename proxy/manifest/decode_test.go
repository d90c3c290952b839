package manifest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const web = `apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  clusterIP: 10.96.0.10
  ports:
  - port: 80
`

const webSlice = `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  labels:
    kubernetes.io/service-name: web
addressType: IPv4
ports:
- port: 8080
endpoints:
- addresses: [10.0.0.1]
`

func TestDefaultsAreThoseOfAnAPIServer(t *testing.T) {
	objects, err := decode("a.yaml", []byte(strings.Replace(web, "spec:", "spec:\n  sessionAffinity: ClientIP\n  externalIPs: [192.0.2.1]", 1)+"---\n"+webSlice))
	if err != nil {
		t.Fatal(err)
	}
	cluster, timeout := corev1.ServiceInternalTrafficPolicyCluster, int32(10800)
	service := &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: corev1.ServiceSpec{
			Type:                  corev1.ServiceTypeClusterIP,
			ClusterIP:             "10.96.0.10",
			ClusterIPs:            []string{"10.96.0.10"},
			IPFamilies:            []corev1.IPFamily{corev1.IPv4Protocol},
			Ports:                 []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}},
			ExternalIPs:           []string{"192.0.2.1"},
			ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyCluster,
			InternalTrafficPolicy: &cluster,
			SessionAffinity:       corev1.ServiceAffinityClientIP,
			SessionAffinityConfig: &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &timeout}},
		},
	}
	if diff := cmp.Diff(service, objects[0].service); diff != "" {
		t.Errorf("Service (-want +got):\n%s", diff)
	}
	name, protocol, port := "", corev1.ProtocolTCP, int32(8080)
	slice := &discoveryv1.EndpointSlice{
		TypeMeta:    metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Protocol: &protocol, Port: &port}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}},
	}
	if diff := cmp.Diff(slice, objects[1].slice); diff != "" {
		t.Errorf("EndpointSlice (-want +got):\n%s", diff)
	}
}

func TestListsAndJSONAreRead(t *testing.T) {
	for name, content := range map[string]string{
		"documents": "# a comment\n---\n" + web + "---\n---\n" + webSlice + "---\n",
		"list":      "apiVersion: v1\nkind: List\nitems:\n- " + strings.ReplaceAll(strings.TrimSpace(web), "\n", "\n  ") + "\n- " + strings.ReplaceAll(strings.TrimSpace(webSlice), "\n", "\n  ") + "\n",
		"JSON": `{"apiVersion": "v1", "kind": "List", "items": [
			{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]}},
			{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
			 "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": [{"addresses": ["10.0.0.1"]}]}]}`,
		"anchors": strings.Replace(web, "  name: web", "  name: &n web", 1) + "---\n" + strings.Replace(webSlice, "addressType", "addressType", 1),
	} {
		t.Run(name, func(t *testing.T) {
			objects, err := decode("a.yaml", []byte(content))
			if err != nil {
				t.Fatal(err)
			}
			var keys []key
			for _, o := range objects {
				keys = append(keys, o.key)
			}
			want := []key{{serviceKind, "default", "web"}, {sliceKind, "default", "web-1"}}
			if diff := cmp.Diff(want, keys, cmp.AllowUnexported(key{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestEmptyFilesHaveNoObjects(t *testing.T) {
	for _, content := range []string{"", "\n", "---\n", "# nothing\n", "---\n---\n", "null\n"} {
		if objects, err := decode("a.yaml", []byte(content)); err != nil || len(objects) != 0 {
			t.Errorf("%q: got %v, %v", content, objects, err)
		}
	}
}

// Each mistake is told by line and field, all of a file at once.
func TestMistakesAreNamedByLineAndField(t *testing.T) {
	edit := func(content string, oldnew ...string) string { return strings.NewReplacer(oldnew...).Replace(content) }
	for name, c := range map[string]struct {
		content string
		want    []string // of each line of the error, a part
	}{
		"syntax":                {"a: [1\nb: 2\n", []string{"line 1: did not find expected"}},
		"syntax after document": {web + "---\na: b: c\n", []string{"line 10: mapping values"}},
		"no object":             {"just text\n", []string{"line 1: must be an object"}},
		"other kind":            {"---\n\napiVersion: v1\nkind: Pod\n", []string{`line 3: kind "Pod" of apiVersion "v1"`}},
		"old version":           {edit(webSlice, "io/v1", "io/v1beta1"), []string{`line 1: kind "EndpointSlice" of apiVersion "discovery.k8s.io/v1beta1"`}},
		"list without items":    {"kind: List\napiVersion: v1\n", []string{"line 1: items: must be a list"}},
		"unknown field":         {edit(web, "  - port: 80", "  - port: 80\n    prot: TCP"), []string{`line 9: unknown field "spec.ports[0].prot"`}},
		"wrong case":            {edit(web, "clusterIP", "clusterIp"), []string{`line 6: unknown field "spec.clusterIp"`}},
		"duplicate field":       {edit(web, "  - port: 80", "  - port: 80\n    port: 81"), []string{"line 9: mapping key \"port\" already defined"}},
		"wrong type":            {edit(web, "port: 80", "port: http"), []string{"line 8: spec.ports.port: must be of type int32, not string"}},
		"no name":               {edit(web, "  name: web", "  namespace: a"), []string{"line 3: metadata.name: Required value"}},
		"bad name":              {edit(web, "name: web", "name: Web_1"), []string{`line 4: metadata.name: Invalid value: "Web_1"`}},
		"bad namespace":         {edit(web, "  name: web", "  name: web\n  namespace: a.b"), []string{"line 5: metadata.namespace: Invalid value"}},
		"no address":            {edit(web, "  clusterIP: 10.96.0.10\n", ""), []string{"line 5: spec.clusterIP: Required value: nobody allocates one here"}},
		"bad address":           {edit(web, "10.96.0.10", "10.96.0.300"), []string{`line 6: spec.clusterIP: Invalid value: "10.96.0.300": must be an IP address`}},
		"address of nobody":     {edit(web, "10.96.0.10", "127.0.0.1"), []string{"line 6: spec.clusterIP: Invalid value"}},
		"two of one family":     {edit(web, "  ports", "  clusterIPs: [10.96.0.10, 10.96.0.11]\n  ports"), []string{`line 7: spec.clusterIPs[1]: Invalid value: "10.96.0.11": there is one`}},
		"contradiction":         {edit(web, "  ports", "  clusterIPs: [10.96.0.11]\n  ports"), []string{"line 7: spec.clusterIPs[0]: Invalid value"}},
		"no ports":              {edit(web, "  ports:\n  - port: 80\n", ""), []string{"line 5: spec.ports: Required value"}},
		"port out of range":     {edit(web, "80", "65536"), []string{"line 8: spec.ports[0].port: Invalid value: 65536"}},
		"unnamed ports":         {edit(web, "- port: 80", "- port: 80\n  - port: 81\n    name: b"), []string{"line 8: spec.ports[0].name: Required value"}},
		"same port twice":       {edit(web, "- port: 80", "- {port: 80, name: a}\n  - {port: 80, name: b}"), []string{"line 9: spec.ports[1].port: Duplicate value: 80"}},
		"same name twice":       {edit(web, "- port: 80", "- {port: 80, name: a}\n  - {port: 81, name: a}"), []string{"line 9: spec.ports[1].name: Duplicate value: \"a\""}},
		"bad protocol":          {edit(web, "- port: 80", "- port: 80\n    protocol: tcp"), []string{`line 9: spec.ports[0].protocol: Unsupported value: "tcp": supported values: "TCP", "UDP", "SCTP"`}},
		"no node port":          {edit(web, "spec:", "spec:\n  type: NodePort"), []string{"line 9: spec.ports[0].nodePort: Required value"}},
		"bad policies": {edit(web, "spec:", "spec:\n  internalTrafficPolicy: local\n  externalTrafficPolicy: Here\n  sessionAffinity: Client"), []string{
			"line 6: spec.internalTrafficPolicy: Unsupported value", "line 7: spec.externalTrafficPolicy: Unsupported value", "line 8: spec.sessionAffinity: Unsupported value"}},
		"bad timeout": {edit(web, "spec:", "spec:\n  sessionAffinity: ClientIP\n  sessionAffinityConfig:\n    clientIP:\n      timeoutSeconds: 0"),
			[]string{"line 9: spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0"}},
		"bad external": {edit(web, "spec:", "spec:\n  externalIPs: [192.0.2.1, nowhere]\n  loadBalancerSourceRanges: [10.0.0.0]"), []string{
			`line 6: spec.externalIPs[1]: Invalid value: "nowhere"`, `line 7: spec.loadBalancerSourceRanges[0]: Invalid value: "10.0.0.0": must be a CIDR`}},
		"bad ingress":            {web + "status:\n  loadBalancer:\n    ingress:\n    - ip: 192.0.2\n", []string{`line 12: status.loadBalancer.ingress[0].ip: Invalid value`}},
		"same object twice":      {web + "---\n" + web, []string{"line 10: Service default/web is in line 1 already"}},
		"two bad objects":        {edit(web, "10.96.0.10", "x") + "---\n" + edit(webSlice, "10.0.0.1", "y"), []string{"line 6: spec.clusterIP", "line 20: endpoints[0].addresses[0]"}},
		"slice of no Service":    {edit(webSlice, "    kubernetes.io/service-name: web", "    a: b"), []string{"line 5: metadata.labels[kubernetes.io/service-name]: Required value"}},
		"slice of names":         {edit(webSlice, "IPv4", "FQDN"), []string{`line 7: addressType: Unsupported value: "FQDN"`}},
		"wrong family":           {edit(webSlice, "10.0.0.1", "fd00::1"), []string{`line 11: endpoints[0].addresses[0]: Invalid value: "fd00::1": must be an address of addressType IPv4`}},
		"endpoint of no address": {edit(webSlice, "[10.0.0.1]", "[]"), []string{"line 11: endpoints[0].addresses: Required value"}},
		"slice port":             {edit(webSlice, "port: 8080", "name: http"), []string{"line 9: ports[0].port: Required value"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decode("a.yaml", []byte(c.content))
			if err == nil {
				t.Fatal("no error")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(c.want) {
				t.Fatalf("got %q, want %q", lines, c.want)
			}
			for i, want := range c.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("got %q, want %q", lines[i], want)
				}
			}
		})
	}
}

func TestHeadlessAndExternalNameServicesNeedNoAddress(t *testing.T) {
	for _, content := range []string{
		strings.Replace(web, "10.96.0.10", "None", 1),
		"apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: ExternalName, externalName: example.com}\n",
	} {
		if _, err := decode("a.yaml", []byte(content)); err != nil {
			t.Errorf("%s: %v", content, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(web + "---\n" + webSlice))
	f.Add([]byte("apiVersion: v1\nkind: List\nitems: [&a {kind: Service, apiVersion: v1}, *a, 1, null]\n"))
	f.Add([]byte("? [a]\n: b\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		objects, err := decode("a.yaml", content)
		if err == nil {
			for _, o := range objects {
				if o.name == "" || o.namespace == "" {
					t.Errorf("%q: accepted an object without a name: %v", content, o.key)
				}
			}
		}
	})
}
