package metrics

import "github.com/sluice-proxy/sluice/proxy"

// localEndpoints counts the ServicePorts of a family that a Local policy leaves without a backend
// here. It costs in proportion to what changes.
type localEndpoints struct {
	seen  *proxy.Snapshot
	count withoutLocal
}

// withoutLocal is the number of ServicePorts without local backends, by the policy that asks for
// them.
type withoutLocal struct{ internal, external int }

func (l *localEndpoints) update(snapshot *proxy.Snapshot) withoutLocal {
	for _, change := range snapshot.Changes(l.seen) {
		l.count.add(change.Old, -1)
		l.count.add(change.New, 1)
	}
	l.seen = snapshot
	return l.count
}

// add counts a ServicePort n times. A policy drops what others may serve and this node may not; a
// port without any endpoint rejects.
func (w *withoutLocal) add(port *proxy.ServicePort, n int) {
	if port == nil {
		return
	}
	internal, external := false, false
	for _, f := range port.Frontends {
		dropped := f.Routes[proxy.FromOutside].Verdict == proxy.Drop
		if f.Kind == proxy.ClusterIP {
			internal = internal || dropped
		} else {
			external = external || dropped
		}
	}
	if internal {
		w.internal += n
	}
	if external {
		w.external += n
	}
}
