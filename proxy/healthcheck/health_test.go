package healthcheck

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
)

const syncPeriod = 30 * time.Second

func dualStack() *Server {
	return New(Config{Families: proxy.Families[:], SyncPeriod: syncPeriod})
}

// snapshotOf is a snapshot of n ServicePorts.
func snapshotOf(f proxy.Family, n int) *proxy.Snapshot {
	ports := map[proxy.ServicePortName]*proxy.ServicePort{}
	for i := range n {
		name := proxy.ServicePortName{Namespace: "ns", Name: fmt.Sprint("s", i), Protocol: proxy.TCP}
		ports[name] = &proxy.ServicePort{Name: name}
	}
	return proxy.NewSnapshot(&proxy.Node{Family: f}, ports)
}

func get(t *testing.T, h http.Handler, path string) (int, http.Header, map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	var body map[string]any
	if w.Code != http.StatusNotFound {
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Fatalf("%s: body %q: %v", path, w.Body, err)
		}
	}
	return w.Code, w.Header(), body
}

// codes are the answers to healthz and livez.
func codes(t *testing.T, s *Server) [2]int {
	t.Helper()
	healthz, _, _ := get(t, s.Handler(), "/healthz")
	livez, _, _ := get(t, s.Handler(), "/livez")
	return [2]int{healthz, livez}
}

var (
	fine  = [2]int{200, 200}
	drain = [2]int{503, 200} // no new work, but no restart
	bad   = [2]int{503, 503}
)

func TestHealthFollowsTheSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := dualStack()
		expect := func(what string, want [2]int) {
			t.Helper()
			if got := codes(t, s); got != want {
				t.Errorf("%s: healthz and livez are %v, want %v", what, got, want)
			}
		}
		apply := func(f proxy.Family) { s.Applied(f, snapshotOf(f, 1), nil) }
		s.SetNodeEligible(true)
		expect("nothing applied", drain)
		apply(proxy.IPv4)
		expect("one family of two applied", drain)
		apply(proxy.IPv6)
		expect("both applied", fine)

		time.Sleep(time.Hour)
		expect("nothing to do for an hour", fine)

		s.Queued(proxy.IPv4)
		time.Sleep(25 * time.Second)
		expect("a change waits for 25 s", fine)
		time.Sleep(34 * time.Second)
		s.Queued(proxy.IPv4) // a later change does not reset the clock
		time.Sleep(time.Second)
		expect("for twice the sync period", fine)
		time.Sleep(time.Nanosecond)
		expect("for longer", bad)
		apply(proxy.IPv6)
		expect("the other family was applied", bad)
		apply(proxy.IPv4)
		expect("the late family was applied", fine)

		s.Queued(proxy.IPv4)
		s.Queued(proxy.IPv6)
		time.Sleep(2*syncPeriod + 1)
		expect("both late", bad)
		apply(proxy.IPv4)
		expect("one late", bad)
		apply(proxy.IPv6)
		expect("none late", fine)
	})
}

func TestFirstSyncThatHangsAsksForARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := dualStack()
		s.SetNodeEligible(true)
		s.Queued(proxy.IPv4)
		time.Sleep(2 * syncPeriod)
		if got := codes(t, s); got != drain {
			t.Errorf("in time: %v, want %v", got, drain)
		}
		time.Sleep(time.Second)
		if got := codes(t, s); got != bad {
			t.Errorf("late: %v, want %v", got, bad)
		}
	})
}

func TestFamilyThatIsNotServedDoesNotCount(t *testing.T) {
	s := New(Config{Families: []proxy.Family{proxy.IPv6}, SyncPeriod: syncPeriod})
	s.SetNodeEligible(true)
	s.Applied(proxy.IPv6, snapshotOf(proxy.IPv6, 0), nil)
	if got := codes(t, s); got != fine {
		t.Errorf("codes %v, want %v", got, fine)
	}
	_, _, body := get(t, s.Handler(), "/healthz")
	if status := body["status"].(map[string]any); len(status) != 1 || status["IPv6"] == nil {
		t.Errorf("status %v, want IPv6 only", status)
	}
}

func TestIneligibleNodeIsDrained(t *testing.T) {
	s := dualStack()
	for _, f := range proxy.Families {
		s.Applied(f, snapshotOf(f, 1), nil)
	}
	for _, eligible := range []bool{false, true, false} { // at first, nobody knows the node
		if eligible {
			s.SetNodeEligible(true)
		}
		want := drain
		if eligible {
			want = fine
		}
		if got := codes(t, s); got != want {
			t.Errorf("eligible %v: %v, want %v", eligible, got, want)
		}
		_, _, body := get(t, s.Handler(), "/healthz")
		if body["nodeEligible"] != eligible || body["healthy"] != true {
			t.Errorf("eligible %v: body %v, want healthy in any case", eligible, body)
		}
		if _, _, body := get(t, s.Handler(), "/livez"); body["nodeEligible"] != nil {
			t.Errorf("livez speaks of the node: %v", body)
		}
		s.SetNodeEligible(false)
	}
}

func TestSetAsideServicesDrainTheNodeWhenTheyMatter(t *testing.T) {
	aside := func(name string, times int) []proxy.SetAside {
		port := proxy.ServicePortName{Namespace: "default", Name: name}
		return slices.Repeat([]proxy.SetAside{{Name: port, Err: errors.New("refused")}}, times)
	}
	tests := []struct {
		name     string
		ports    int
		setAside []proxy.SetAside
		want     [2]int
	}{
		{"none", 100, nil, fine},
		{"one in twenty", 1000, aside("a", 50), fine},
		{"more than one in twenty", 1000, aside("a", 51), drain},
		{"the API server", 1000, aside("kubernetes", 1), drain},
		{"another Service of that name's namespace", 1000, aside("kubernetes-dashboard", 1), fine},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := dualStack()
			s.SetNodeEligible(true)
			s.Applied(proxy.IPv4, snapshotOf(proxy.IPv4, tt.ports), nil)
			s.Applied(proxy.IPv6, snapshotOf(proxy.IPv6, tt.ports), tt.setAside)
			if got := codes(t, s); got != tt.want {
				t.Errorf("codes %v, want %v", got, tt.want)
			}
			s.Applied(proxy.IPv6, snapshotOf(proxy.IPv6, tt.ports), nil)
			if got := codes(t, s); got != fine {
				t.Errorf("when mended: codes %v, want %v", got, fine)
			}
		})
	}
}

func TestAnswersOfTheHealthServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now().Format(time.RFC3339Nano)
		s := dualStack()
		s.SetNodeEligible(true)
		const never = "0001-01-01T00:00:00Z"
		type status = map[string]any
		expect := func(path string, code int, want status) {
			t.Helper()
			gotCode, header, body := get(t, s.Handler(), path)
			if gotCode != code {
				t.Errorf("%s: code %d, want %d", path, gotCode, code)
			}
			if header.Get("Content-Type") != "application/json" || header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s: headers %v", path, header)
			}
			if diff := cmp.Diff(want, status(body)); diff != "" {
				t.Errorf("%s: body (-want +got):\n%s", path, diff)
			}
		}
		expect("/livez", 200, status{"lastUpdated": began, "currentTime": began, "healthy": true})
		expect("/healthz", 503, status{"lastUpdated": never, "currentTime": began, "nodeEligible": true, "healthy": false, "status": status{
			"IPv4": status{"lastUpdated": never, "healthy": false}, "IPv6": status{"lastUpdated": never, "healthy": false},
		}})
		s.Applied(proxy.IPv4, snapshotOf(proxy.IPv4, 0), nil)
		time.Sleep(1500 * time.Millisecond)
		later := time.Now().Format(time.RFC3339Nano)
		s.Applied(proxy.IPv6, snapshotOf(proxy.IPv6, 0), nil)
		s.Queued(proxy.IPv4)
		time.Sleep(time.Second)
		now := time.Now().Format(time.RFC3339Nano)
		all := status{"IPv4": status{"lastUpdated": began, "healthy": true}, "IPv6": status{"lastUpdated": later, "healthy": true}}
		expect("/healthz", 200, status{"lastUpdated": now, "currentTime": now, "nodeEligible": true, "healthy": true, "status": all})
		expect("/livez", 200, status{"lastUpdated": now, "currentTime": now, "healthy": true, "status": all})

		time.Sleep(time.Hour)
		now = time.Now().Format(time.RFC3339Nano)
		all["IPv4"] = status{"lastUpdated": began, "healthy": false}
		expect("/healthz", 503, status{"lastUpdated": later, "currentTime": now, "nodeEligible": true, "healthy": false, "status": all})
		expect("/livez", 503, status{"lastUpdated": later, "currentTime": now, "healthy": false, "status": all})
	})
}

func TestOnlyTheTwoPathsAreServedAndCounted(t *testing.T) {
	var counted []string
	s := New(Config{
		Families: proxy.Families[:1], SyncPeriod: syncPeriod,
		Healthz: func(code int) { counted = append(counted, fmt.Sprint("healthz ", code)) },
		Livez:   func(code int) { counted = append(counted, fmt.Sprint("livez ", code)) },
	})
	for _, path := range []string{"/", "/healthz/", "/healthz/ping", "/metrics", "//healthz"} {
		if code, _, _ := get(t, s.Handler(), path); code != http.StatusNotFound {
			t.Errorf("%s: code %d", path, code)
		}
	}
	codes(t, s)
	s.SetNodeEligible(true)
	s.Applied(proxy.IPv4, snapshotOf(proxy.IPv4, 0), nil)
	codes(t, s)
	if want := []string{"healthz 503", "livez 200", "healthz 200", "livez 200"}; !slices.Equal(counted, want) {
		t.Errorf("counted %v, want %v", counted, want)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/livez?verbose", nil))
	if w.Code != http.StatusOK {
		t.Errorf("POST: code %d", w.Code)
	}
}
