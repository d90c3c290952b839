package policy

import "github.com/sluice-proxy/sluice/proxy"

// routeTables are the two tables of a port: one for its ClusterIP, one for all that clients outside
// the cluster may use.
type routeTables struct {
	clusterIP, external proxy.Routes
}

func tables(svc *Service, chosen choice, node *proxy.Node) routeTables {
	t := routeTables{proxy.Every(reject), proxy.Every(reject)}
	if chosen.usable() {
		t.clusterIP = clusterIPRoutes(svc.InternalLocal, len(chosen.local) > 0, node)
		t.external = externalRoutes(svc.ExternalLocal, len(chosen.local) > 0)
	}
	if !tellsPods(node) {
		t.clusterIP[proxy.FromPod] = t.clusterIP[proxy.FromOutside]
		t.external[proxy.FromPod] = t.external[proxy.FromOutside]
	}
	return t
}

var (
	reject = proxy.Route{Verdict: proxy.Reject}
	drop   = proxy.Route{Verdict: proxy.Drop}
)

func forward(pool proxy.Pool, masquerade bool) proxy.Route {
	return proxy.Route{Verdict: proxy.Forward, Pool: pool, Masquerade: masquerade}
}

// clusterIPRoutes is the table of a ClusterIP while some endpoint of the port is usable.
func clusterIPRoutes(internalLocal, anyLocal bool, node *proxy.Node) proxy.Routes {
	pool := proxy.ClusterPool
	if internalLocal {
		if !anyLocal {
			return proxy.Every(drop)
		}
		pool = proxy.LocalPool
	}
	// Where pods cannot be told from others, masquerading others would hide the pods' addresses too.
	others := node.MasqueradeAll || tellsPods(node)
	return proxy.Routes{
		proxy.FromPod:     forward(pool, node.MasqueradeAll),
		proxy.FromNode:    forward(pool, others),
		proxy.FromOutside: forward(pool, others),
	}
}

// externalRoutes is the table of an external IP, a load-balancer IP or a NodePort while some endpoint
// of the port is usable. Pods and the node itself reach every backend under both policies, as they
// would by way of a load balancer.
func externalRoutes(externalLocal, anyLocal bool) proxy.Routes {
	if !externalLocal {
		return proxy.Every(forward(proxy.ClusterPool, true))
	}
	outside := drop
	if anyLocal {
		outside = forward(proxy.LocalPool, false)
	}
	return proxy.Routes{
		proxy.FromPod:     forward(proxy.ClusterPool, false),
		proxy.FromNode:    forward(proxy.ClusterPool, true),
		proxy.FromOutside: outside,
	}
}

func tellsPods(node *proxy.Node) bool { return node.PodSource.Kind != proxy.PodSourceNone }
