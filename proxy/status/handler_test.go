package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
	"github.com/sluice-proxy/sluice/proxy/loop"
)

// get is a question for some data; its query need not be escaped.
func get(data string) *http.Request {
	path, query, _ := strings.Cut(data, "?")
	r := httptest.NewRequest(http.MethodGet, Path+"data/"+path, nil)
	r.URL.RawQuery = strings.NewReplacer(" ", "+", "<", "%3C", "[", "%5B", "]", "%5D").Replace(query)
	return r
}

// answer decodes what the handler says.
func answer[T any](t *testing.T, h http.Handler, data string) T {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, get(data))
	var value T
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%s: %d, %v: %s", data, w.Code, w.Header(), w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &value); err != nil {
		t.Fatal(err)
	}
	return value
}

func TestServicesAreSearched(t *testing.T) {
	w := newWorld(1000)
	w.apply(report(1, refused(13)), time.Millisecond)
	h := Handler(w.config())
	for _, test := range []struct {
		query   string
		matched int
		first   string
	}{
		{"", 1000, "analytics/api-133"},
		{"q=payments", 125, "payments/api-1"},
		{"q=PAYMENTS gateway", 16, "payments/gateway-161"},
		{"q=payments/gateway-161", 1, "payments/gateway-161"},
		{"q=web-9:http tcp", 1, "payments/web-9"},
		{"q=10.96.1.2:", 1, "search/api-258"},
		{"q=:30013", 1, "analytics/web-13"},
		{"q=10.200.0.13:8080", 1, "analytics/web-13"},
		{"q=10.202.0.13", 0, ""}, // it is not ready
		{"q=192.0.2.15:", 1, "edge/web-15"},
		{"q=nobody", 0, ""},
		{"q=udp", 0, ""},
		{"only=aside", 1, "analytics/web-13"},
		{"only=aside&q=nobody", 0, ""},
		{"only=unserved", 100, "analytics/api-389"},
		{"offset=999", 1000, "shop/worker-976"},
	} {
		got := answer[services](t, h, "services?"+test.query)
		var first string
		if len(got.Rows) > 0 {
			first = got.Rows[0].Service
		}
		if got.Count != 1000 || got.Matched != test.matched || first != test.first {
			t.Errorf("%s: %d of %d from %q", test.query, got.Matched, got.Count, first)
		}
	}
	for query, want := range map[string]int{"": 50, "limit=7": 7, "limit=100000": 200, "offset=995": 5, "offset=5000": 0, "limit=0": 0} {
		if got := answer[services](t, h, "services?"+query); len(got.Rows) != want {
			t.Errorf("%s: %d rows, want %d", query, len(got.Rows), want)
		}
	}
}

func TestRowsTellAllOfAService(t *testing.T) {
	w := newWorld(20)
	w.apply(report(1, refused(15)), time.Millisecond)
	got := answer[services](t, Handler(w.config()), "services?q=web-15")
	var want services
	if err := json.Unmarshal([]byte(`{"count": 20, "matched": 1, "rows": [{
		"service": "analytics/web-15", "port": "http", "protocol": "tcp", "families": [{
			"family": "IPv4", "serves": true, "here": 1, "setAside": "netlink: add element to map cluster-ips: cannot allocate memory",
			"frontends": {"count": 2, "first": [{"address": "10.96.0.15:80", "kind": "cluster IP"}, {"address": "192.0.2.15:80", "kind": "load balancer IP"}]},
			"backends": {"count": 2, "first": [{"address": "10.200.0.15:8080", "here": true}, {"address": "10.201.0.15:8080"}]}
		}]
	}]}`), &want); err != nil {
		t.Fatal(err)
	}
	want.Rows[0].Service = got.Rows[0].Service
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	detail := answer[service](t, Handler(w.config()), "service?name="+got.Rows[0].Service)
	for _, part := range []string{`"10.202.0.15:8080"`, "not ready", `"198.51.100.0/24"`, "cannot allocate memory"} {
		if !strings.Contains(string(detail.Ports), part) {
			t.Errorf("no %s in %s", part, detail.Ports)
		}
	}
}

func TestEndpointsOfALargeServiceAreCounted(t *testing.T) {
	in := input(1)
	endpoint := in.Slices[0].Endpoints[0]
	for range 2000 {
		endpoint.Addr = endpoint.Addr.Next()
		in.Slices[0].Endpoints = append(in.Slices[0].Endpoints, endpoint)
	}
	w := newWorld(0, in)
	w.apply(report(1), time.Millisecond)
	h := Handler(w.config())
	got := answer[services](t, h, "services").Rows[0].Families[0].Backends
	if got.Count < 2000 || len(got.First) != shown {
		t.Errorf("%d backends, %d of them shown", got.Count, len(got.First))
	}
	if detail := answer[service](t, h, "service?name="+in.Name.String()); detail.Left != 2003-detailed {
		t.Errorf("%d endpoints are left", detail.Left)
	}
}

func TestSummaryTellsWhatIsAmiss(t *testing.T) {
	w := newWorld(30)
	h := Handler(w.config())
	if got := answer[summary](t, h, "summary"); got.Families[0].Served || got.Services != 0 || got.SetAside.Count != 0 {
		t.Errorf("before anything is applied: %+v", got)
	}
	var aside []proxy.SetAside
	for range 150 {
		aside = append(aside, refused(13))
	}
	aside[0].Err = errors.New(strings.Repeat("long ", 1000))
	w.history.Doubted(proxy.IPv4, "flushed by nft (pid 12)")
	w.apply(report(5, aside...), time.Millisecond)
	w.history.Contested(t.Context(), proxy.IPv4, []desired.Conflict{{Owner: refused(1).Name, Losers: []proxy.ServicePortName{refused(2).Name}}})
	w.history.Failed(t.Context(), loop.Failed{Err: errors.New("no memory")})

	got := answer[summary](t, h, "summary")
	f := got.Families[0]
	if got.Node != "node-1" || got.Mode != "nftables" || got.Services != 30 || f.Frontends != 36 || f.Backends != 54 || f.Unserved != 3 {
		t.Errorf("%+v", got)
	}
	if got.SetAside.Count != 150 || len(got.SetAside.First) != listed || len(got.SetAside.First[0].Why) > 2*longest {
		t.Errorf("%d set aside, %d listed, %d bytes", got.SetAside.Count, len(got.SetAside.First), len(got.SetAside.First[0].Why))
	}
	if got.Conflicts.Count != 1 || got.Conflicts.First[0].Losers[0] != refused(2).Name.String() {
		t.Errorf("%+v", got.Conflicts)
	}
	if k := f.Kernel; k.Doubts != 1 || k.Last.Reason != "flushed by nft (pid 12)" || k.Last.Repaired.IsZero() || k.Error != "no memory" {
		t.Errorf("%+v", k)
	}
}

func TestOnlyNewSyncsAreSent(t *testing.T) {
	w := newWorld(1)
	for range 5 {
		w.apply(report(1), time.Millisecond)
	}
	h := Handler(w.config())
	for after, want := range map[string]int{"": 5, "0": 5, "3": 2, "5": 0, "900": 0} {
		if got := answer[[]map[string]any](t, h, "syncs?after="+after); len(got) != want {
			t.Errorf("after %q: %d, want %d", after, len(got), want)
		}
	}
}

func TestWhatIsNoQuestionIsRefused(t *testing.T) {
	h := Handler(newWorld(0).config())
	for _, data := range []string{"services?only=all", "services?offset=-1", "services?limit=x", "syncs?after=x", "service?name=x"} {
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, get(data)); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", data, w.Code)
		}
	}
	for _, r := range []*http.Request{
		httptest.NewRequest(http.MethodPost, Path+"data/summary", nil), httptest.NewRequest(http.MethodGet, Path+"data/secrets", nil),
		httptest.NewRequest(http.MethodGet, Path+"../handler.go", nil), httptest.NewRequest(http.MethodGet, Path+"data/", nil),
	} {
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code < 300 {
			t.Errorf("%s %s: %d", r.Method, r.URL, w.Code)
		}
	}
}

// Whatever is answered, errors included, a browser may do no more with it than the page needs.
func TestBrowsersAreHeldToThePolicy(t *testing.T) {
	h := Handler(newWorld(0).config())
	for _, path := range []string{"", "page.js", "data/summary", "data/syncs?after=x", "nothing"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, Path+path, nil))
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; ", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
			"Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := w.Header().Get(name); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s: %q", path, name, got)
			}
		}
		if w.Code == http.StatusOK && w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", path, w.Header())
		}
		if strings.Contains(w.Header().Get("Content-Security-Policy"), "unsafe") || w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %v", path, w.Header())
		}
	}
}

// What the files say is what they may: nothing from elsewhere, no script or style in the HTML, no text that becomes HTML.
func TestThePageStandsAlone(t *testing.T) {
	forbidden := regexp.MustCompile(`(?i)https?://|//[a-z0-9-]+\.[a-z]|\son[a-z]+=|style=|javascript:|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|<script>|<style`)
	for _, name := range []string{"index.html", "page.css", "page.js", "dom.js", "plot.js", "services.js", "icon.svg"} {
		text, err := files.ReadFile("page/" + name)
		if err != nil {
			t.Fatal(err)
		}
		// The name of SVG's elements is an address that nobody asks.
		rest := strings.ReplaceAll(string(text), "http://www.w3.org/2000/svg", "")
		if found := forbidden.FindString(rest); found != "" {
			t.Errorf("%s: %q", name, found)
		}
	}
}

// Many who ask take turns, and whoever waits for too long is told so. A client that reads slowly holds up nobody.
func TestQuestionsTakeTurns(t *testing.T) {
	w := newWorld(1)
	p := &page{Config: w.config(), turn: make(chan struct{}, 1)}
	h := p.inTurn(p.summary)
	p.turn <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	waiting := httptest.NewRecorder()
	if h.ServeHTTP(waiting, get("summary").WithContext(ctx)); waiting.Code != http.StatusServiceUnavailable {
		t.Errorf("in another's turn: %d", waiting.Code)
	}
	<-p.turn
	h.ServeHTTP(slow{httptest.NewRecorder(), func() {
		after := httptest.NewRecorder()
		if h.ServeHTTP(after, get("summary")); after.Code != http.StatusOK {
			t.Errorf("while another reads: %d", after.Code)
		}
	}}, get("summary"))
}

// slow does something else before it reads.
type slow struct {
	http.ResponseWriter
	first func()
}

func (s slow) Write(b []byte) (int, error) {
	s.first()
	return s.ResponseWriter.Write(b)
}

// Whatever is searched for, the answer is well-formed and has no more than was asked for.
func FuzzSearch(f *testing.F) {
	w := newWorld(40, hostile())
	w.apply(report(1, refused(3)), time.Millisecond)
	h := Handler(w.config())
	for _, q := range []string{"shop", "10.96", "[::", " ", "<img", "\x00\xff", "aside"} {
		f.Add(q, "3", "2")
	}
	f.Fuzz(func(t *testing.T, q, offset, limit string) {
		r := httptest.NewRequest(http.MethodGet, Path+"data/services", nil)
		r.URL.RawQuery = url.Values{"q": {q}, "offset": {offset}, "limit": {limit}}.Encode()
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code == http.StatusBadRequest {
			return
		}
		body, _ := io.ReadAll(rec.Body)
		var got services
		if err := json.Unmarshal(body, &got); err != nil || got.Count != 41 || got.Matched > got.Count || len(got.Rows) > min(got.Matched, rowsMost) {
			t.Errorf("%q: %v: %s", q, err, body)
		}
	})
}

func ExampleHandler() {
	w := newWorld(3)
	w.apply(report(1), time.Millisecond)
	rec := httptest.NewRecorder()
	Handler(w.config()).ServeHTTP(rec, get("services?q=shop&limit=0"))
	fmt.Println(rec.Body)
	// Output: {"count":3,"matched":1,"rows":[]}
}
