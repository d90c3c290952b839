package httpserver

import (
	"net/http"
	"net/netip"
)

// LoopbackOnly keeps from other hosts what could slow the proxy down or show more than all may see: the metrics
// address is often open to all.
func LoopbackOnly(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !client.Addr().IsLoopback() {
			http.Error(w, "this is for local clients", http.StatusForbidden)
			return
		}
		handler.ServeHTTP(w, r)
	})
}
