package healthcheck

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/sluice-proxy/sluice/proxy/httpserver"
)

// Serve answers on an address until ctx ends; an empty address serves nothing. When the address
// cannot be bound it tries again, or fails if hardFail says so.
func (s *Server) Serve(ctx context.Context, addr string, hardFail bool) error {
	return httpserver.Run(ctx, httpserver.Config{
		Name: "health", Addr: addr, Handler: s.Handler(), HardFail: hardFail, Listen: s.cfg.Listen,
	})
}

// Handler answers /healthz and /livez.
//
// livez is 503 if a change of some family has waited for more than twice the sync period: a
// restart may help. healthz is 503 also until all families serve their first snapshot, while too
// much is set aside, and when the node is not eligible: a load balancer should look elsewhere.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz":
			count(s.cfg.Healthz, s.health().writeHealthz(w))
		case "/livez":
			count(s.cfg.Livez, s.health().writeLivez(w))
		default:
			http.NotFound(w, r)
		}
	})
}

func count(counter func(code int), code int) {
	if counter != nil {
		counter(code)
	}
}

// answer is the body of both paths.
type answer struct {
	LastUpdated  time.Time               `json:"lastUpdated"`
	CurrentTime  time.Time               `json:"currentTime"`
	NodeEligible *bool                   `json:"nodeEligible,omitempty"`
	Healthy      bool                    `json:"healthy"` // whether the node is eligible or not
	Status       map[string]familyAnswer `json:"status,omitempty"`
}

type familyAnswer struct {
	LastUpdated time.Time `json:"lastUpdated"`
	Healthy     bool      `json:"healthy"`
}

func (h health) writeHealthz(w http.ResponseWriter) (code int) {
	a := h.answer(func(f familyHealth) (bool, bool) { return f.alive && f.serving, true })
	a.NodeEligible = &h.eligible
	return a.write(w, a.Healthy && h.eligible)
}

func (h health) writeLivez(w http.ResponseWriter) (code int) {
	a := h.answer(func(f familyHealth) (bool, bool) { return f.alive, f.known })
	return a.write(w, a.Healthy)
}

// answer lists the families that judge wants listed. All of them must be healthy.
func (h health) answer(judge func(familyHealth) (healthy, listed bool)) answer {
	a := answer{LastUpdated: h.updated, CurrentTime: h.now, Healthy: true, Status: map[string]familyAnswer{}}
	for name, f := range h.families {
		healthy, listed := judge(f)
		a.Healthy = a.Healthy && healthy
		if listed {
			a.Status[name.String()] = familyAnswer{LastUpdated: f.updated, Healthy: healthy}
		}
	}
	return a
}

func (a answer) write(w http.ResponseWriter, good bool) (code int) {
	code = http.StatusServiceUnavailable
	if good {
		code = http.StatusOK
		a.LastUpdated = a.CurrentTime // clients take an old time for a sign of trouble
	}
	writeJSON(w, code, body(json.Marshal(a)))
	return code
}

// body is what an encoder makes of plain values, which cannot fail.
func body(b []byte, _ error) []byte { return b }

func writeJSON(w http.ResponseWriter, code int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(body) // the client may be gone
}
