package neighbour

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// object is an API object.
type object interface {
	runtime.Object
	metav1.Object
}

// api is as much of an API server as kube-proxy needs: lists and watches of what it is told. It is safe for concurrent use.
type api struct {
	mu      sync.Mutex
	version int                          // of the newest object
	kinds   map[string]map[string]object // by the last part of their path, then by namespace and name
	gone    map[string]map[string]object // the same, with the version that they went with
	changed chan struct{}                // closed when something changes
}

// kinds are what is served, by the last part of the path.
var kinds = map[string]schema.GroupVersionKind{
	"services":       {Version: "v1", Kind: "Service"},
	"nodes":          {Version: "v1", Kind: "Node"},
	"endpointslices": {Group: "discovery.k8s.io", Version: "v1", Kind: "EndpointSlice"},
	"servicecidrs":   {Group: "networking.k8s.io", Version: "v1", Kind: "ServiceCIDR"},
}

func newAPI() *api {
	a := &api{version: 1, kinds: map[string]map[string]object{}, gone: map[string]map[string]object{}, changed: make(chan struct{})}
	for kind := range kinds {
		a.kinds[kind], a.gone[kind] = map[string]object{}, map[string]object{}
	}
	return a
}

func keyOf(o object) string { return o.GetNamespace() + "/" + o.GetName() }

// set replaces all objects of a kind. What is equal to what there was keeps its version.
func (a *api) set(kind string, objects ...object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old, now := a.kinds[kind], map[string]object{}
	for _, o := range objects {
		o = o.DeepCopyObject().(object)
		o.GetObjectKind().SetGroupVersionKind(kinds[kind])
		key := keyOf(o)
		if was := old[key]; was != nil {
			o.SetResourceVersion(was.GetResourceVersion())
			if reflect.DeepEqual(was, o) {
				now[key] = was
				continue
			}
		}
		a.version++
		o.SetResourceVersion(strconv.Itoa(a.version))
		now[key] = o
		delete(a.gone[kind], key)
	}
	for key, o := range old {
		if now[key] == nil {
			a.version++
			o = o.DeepCopyObject().(object)
			o.SetResourceVersion(strconv.Itoa(a.version))
			a.gone[kind][key] = o
		}
	}
	a.kinds[kind] = now
	close(a.changed)
	a.changed = make(chan struct{})
}

// ServeHTTP implements http.Handler.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	kind, name := parts[len(parts)-1], ""
	if kinds[kind].Kind == "" && len(parts) > 1 {
		kind, name = parts[len(parts)-2], kind
	}
	w.Header().Set("Content-Type", "application/json")
	selector, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	switch {
	case r.Method != http.MethodGet: // an Event
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{"kind": "Event", "apiVersion": "events.k8s.io/v1"}`))
	case err != nil || kinds[kind].Kind == "":
		http.Error(w, "{}", http.StatusNotFound)
	case name != "":
		a.get(w, kind, "/"+name)
	case r.URL.Query().Get("watch") == "true":
		a.watch(w, r, kind, selector)
	default:
		a.list(w, kind, selector)
	}
}

// get answers with one object without a namespace.
func (a *api) get(w http.ResponseWriter, kind, key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o := a.kinds[kind][key]; o != nil {
		_ = json.NewEncoder(w).Encode(o)
		return
	}
	http.Error(w, "{}", http.StatusNotFound)
}

func (a *api) list(w http.ResponseWriter, kind string, selector labels.Selector) {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := struct {
		metav1.TypeMeta `json:",inline"`
		metav1.ListMeta `json:"metadata"`
		Items           []object `json:"items"`
	}{Items: []object{}}
	list.APIVersion, list.Kind = kinds[kind].GroupVersion().String(), kinds[kind].Kind+"List"
	list.ResourceVersion = strconv.Itoa(a.version)
	for _, o := range a.kinds[kind] {
		if selector.Matches(labels.Set(o.GetLabels())) {
			list.Items = append(list.Items, o)
		}
	}
	_ = json.NewEncoder(w).Encode(list)
}

// watch tells of changes until the client goes.
func (a *api) watch(w http.ResponseWriter, r *http.Request, kind string, selector labels.Selector) {
	query := r.URL.Query()
	since, _ := strconv.Atoi(query.Get("resourceVersion"))
	initial := query.Get("sendInitialEvents") == "true"
	if initial {
		since = 0
	}
	known := map[string]bool{} // what the client has
	encoder := json.NewEncoder(w)
	for {
		a.mu.Lock()
		events, now, changed := a.events(kind, selector, since, known), a.version, a.changed
		a.mu.Unlock()
		if initial {
			events = append(events, bookmark(kind, now))
			initial = false
		}
		for _, e := range events {
			if err := encoder.Encode(e); err != nil {
				return
			}
		}
		since = now
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		}
	}
}

// event is a line of a watch.
type event struct {
	Type   string `json:"type"`
	Object any    `json:"object"`
}

// events are those that follow a version: what goes first, and the rest in the order of names.
func (a *api) events(kind string, selector labels.Selector, since int, known map[string]bool) []event {
	newer := func(o object) bool {
		version, _ := strconv.Atoi(o.GetResourceVersion())
		return version > since
	}
	var all []event
	for _, key := range slices.Sorted(maps.Keys(a.gone[kind])) {
		if o := a.gone[kind][key]; newer(o) && (known[key] || since > 0) {
			delete(known, key)
			all = append(all, event{"DELETED", o})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(a.kinds[kind])) {
		o := a.kinds[kind][key]
		selected := selector.Matches(labels.Set(o.GetLabels()))
		switch {
		case !newer(o):
			known[key] = selected
		case selected && known[key]:
			all = append(all, event{"MODIFIED", o})
		case selected:
			known[key] = true
			all = append(all, event{"ADDED", o})
		case known[key]:
			known[key] = false
			all = append(all, event{"DELETED", o})
		}
	}
	return all
}

// bookmark says that the client has all that there was at first.
func bookmark(kind string, version int) event {
	return event{"BOOKMARK", &metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{APIVersion: kinds[kind].GroupVersion().String(), Kind: kinds[kind].Kind},
		ObjectMeta: metav1.ObjectMeta{
			ResourceVersion: fmt.Sprint(version),
			Annotations:     map[string]string{metav1.InitialEventsAnnotationKey: "true"},
		},
	}}
}

// objects makes a list of one of a kind.
func objects[T object](list []T) []object {
	all := make([]object, len(list))
	for i, o := range list {
		all[i] = o
	}
	return all
}
