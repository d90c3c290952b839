package status

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/e2e/browser"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
	"github.com/sluice-proxy/sluice/proxy/loop"
)

var screenshots = flag.String("screenshots", "", "folder that pictures of the page are written to")

// serve shows a world under the path and with the name that the metrics address has it, beside something that must not be loaded.
func serve(t *testing.T, w *world) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(Path, Handler(w.config()))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL + Path
}

// lively is a node that has done a lot in the last half hour.
func lively(t *testing.T) *world {
	t.Helper()
	w := newWorld(10_000, hostile())
	w.past = 31 * time.Minute
	all := report(41_210)
	all.Full = true
	w.apply(all, 1900*time.Millisecond)
	for i := range 140 {
		w.past -= time.Duration(i*i%23) * time.Second
		w.apply(report(4+i*i%37), time.Duration(4+i*7%23)*time.Millisecond)
		if i == 60 {
			w.history.Failed(t.Context(), loop.Failed{Err: errors.New("nft: interrupted system call"), Took: 90 * time.Millisecond})
		}
	}
	w.history.Doubted(proxy.IPv4, "nft (process 4711) changed map cluster-ips")
	w.past -= time.Second
	all.SetAside = []proxy.SetAside{refused(13), refused(1013)}
	w.apply(all, 640*time.Millisecond)
	w.past -= 40 * time.Second
	w.apply(report(9, all.SetAside...), 12*time.Millisecond)
	w.past -= 3 * time.Minute
	w.history.Audited(proxy.IPv4, 0, nil)
	w.history.Contested(t.Context(), proxy.IPv4, []desired.Conflict{{
		Frontend: proxy.FrontendKey{Addr: netip.MustParseAddrPort("192.0.2.200:443"), Protocol: proxy.TCP},
		Owner:    refused(5).Name, Losers: []proxy.ServicePortName{refused(25).Name},
	}})
	return w
}

// rowsAre waits until the table of Services has so many, of so many ports that match.
func rowsAre(p *browser.Page, rows int, found string) {
	p.Until(fmt.Sprintf(`document.querySelectorAll("#rows tr.row").length === %d && document.getElementById("found").textContent.startsWith(%q)`, rows, found))
}

// same tells whether the browser kept to the page's host and had nothing to say against it.
func same(t *testing.T, p *browser.Page, url string) {
	t.Helper()
	for _, complaint := range p.Complaints() {
		t.Error(complaint)
	}
	for _, asked := range p.Requested() {
		if !strings.HasPrefix(asked, url) && !strings.HasPrefix(asked, "about:") {
			t.Errorf("asked for %s", asked)
		}
	}
}

func TestBrowserShowsTenThousandServices(t *testing.T) {
	url, p := serve(t, lively(t)), browser.Open(t)
	p.Go(url)
	rowsAre(p, 50, "10,001 ports")
	p.Until(`document.title === "Sluice node-1" && document.getElementById("about").textContent === "mode nftables, v0.1.0"`)
	p.Until(`document.querySelectorAll("#plot circle.partial").length === 2 * 141`)
	p.Until(`document.querySelectorAll("#plot path.full").length === 4 && document.querySelectorAll("#plot path.failed").length === 2`)
	p.Until(`document.querySelectorAll("#aside li").length === 2 && document.getElementById("aside").innerText.includes("cannot allocate memory")`)
	p.Until(`document.getElementById("conflicts").innerText.includes("192.0.2.200:443")`)
	p.Until(`document.querySelector(".card .pill").textContent === "as applied" && document.querySelector(".card").innerText.includes("process 4711")`)
	p.Until(`document.querySelector(".card").innerText.includes("they agree")`)

	// To the last page and back, and to one Service by its address.
	p.Eval(`document.getElementById("next").click()`, nil)
	p.Until(`document.getElementById("where").textContent === "51 to 100 of 10,001"`)
	p.Eval(`document.getElementById("back").click()`, nil)
	p.Until(`document.getElementById("where").textContent === "1 to 50 of 10,001" && document.getElementById("back").disabled`)
	p.Eval(`(document.getElementById("only").value = "aside", document.getElementById("only").dispatchEvent(new Event("change")))`, nil)
	rowsAre(p, 2, "2 of 10,001")
	same(t, p, url)
}

func TestBrowserIsUsedByKeys(t *testing.T) {
	url, p := serve(t, lively(t)), browser.Open(t)
	p.Go(url)
	rowsAre(p, 50, "10,001 ports")
	p.Press("/")
	p.Until(`document.activeElement.id === "q" && document.activeElement.value === ""`)
	p.Type("10.96.3.222")
	rowsAre(p, 1, "1 of 10,001")
	p.Press("Tab", "Tab")
	p.Until(`document.activeElement.classList.contains("open")`)
	p.Press("Enter")
	p.Until(`document.activeElement.getAttribute("aria-expanded") === "true"`)
	p.Until(`document.querySelector(".detail").innerText.includes("10.202.3.222:8080") && document.querySelector(".detail").innerText.includes("not ready")`)
	p.Press("Enter")
	p.Until(`document.querySelector(".detail") === null && document.activeElement.getAttribute("aria-expanded") === "false"`)

	p.Eval(`document.getElementById("plot").focus()`, nil)
	p.Press("End")
	p.Until(`document.getElementById("picked").textContent.includes("wrote a difference in 12 ms")`)
	p.Press("ArrowLeft")
	p.Until(`document.getElementById("picked").textContent.includes("wrote everything in 640 ms; 41,210 of 41,210 objects")`)
	same(t, p, url)
}

// Names are what anybody who may make a Service chooses.
func TestBrowserTakesNoNameForHTML(t *testing.T) {
	url, p := serve(t, lively(t)), browser.Open(t)
	p.Go(url)
	rowsAre(p, 50, "10,001 ports")
	p.Press("/")
	p.Type("onerror")
	rowsAre(p, 1, "1 of 10,001")
	p.Until(`document.querySelector(".open").textContent.includes("<img src=x onerror=")`)
	p.Eval(`document.querySelector(".open").click()`, nil)
	p.Until(`document.querySelector(".detail").innerText.includes("sluice explain attack/<img")`)
	var images int
	if p.Eval(`document.querySelectorAll("main img").length`, &images); images != 0 {
		t.Errorf("%d images", images)
	}
	p.Until(`document.title === "Sluice node-1"`)
	same(t, p, url)
}

// The policy is in force: what breaks out all the same gets nowhere.
func TestBrowserKeepsThePolicy(t *testing.T) {
	url, p := serve(t, newWorld(1)), browser.Open(t)
	p.Go(url)
	p.Until(`document.getElementById("kernel").innerText.includes("Nothing is applied yet")`)
	for _, harm := range []string{
		`(document.body.innerHTML = "<b>x</b>")`,
		`eval("1")`,
		`fetch("http://127.0.0.1:9/")`,
	} {
		var failed bool
		if p.Eval("(async () => { await "+harm+" })().then(() => false, () => true)", &failed); !failed {
			t.Errorf("%s works", harm)
		}
	}
	if len(p.Complaints()) < 3 {
		t.Errorf("the browser said only %q", p.Complaints())
	}
}

func TestBrowserFollowsTheProxy(t *testing.T) {
	w := newWorld(3)
	server := httptest.NewUnstartedServer(Handler(w.config()))
	server.Start()
	t.Cleanup(server.Close)
	p := browser.Open(t)
	p.Go(server.URL + Path)
	p.Until(`document.getElementById("state").textContent === "not settled"`)
	w.apply(report(3), time.Millisecond)
	p.Until(`document.getElementById("state").textContent === "serving"`)
	rowsAre(p, 3, "3 ports")
	in := input(7)
	w.inputs[in.Name], w.want = in, nil
	w.apply(report(1), time.Millisecond)
	rowsAre(p, 4, "4 ports")
	w.history.Audited(proxy.IPv4, 2, nil)
	p.Until(`document.querySelector(".card").innerText.includes("2 differences, mended then")`)
	w.history.Failed(t.Context(), loop.Failed{Err: errors.New("no memory")})
	p.Until(`document.getElementById("state").textContent === "syncs fail" && document.querySelector(".card").innerText.includes("no memory")`)
	for _, complaint := range p.Complaints() {
		t.Error(complaint)
	}
	server.CloseClientConnections()
	server.Close()
	p.Until(`document.getElementById("state").textContent === "no answer" && !document.getElementById("trouble").hidden`)
}

// In a narrow window nothing is wider than it.
func TestBrowserFitsIntoAPhone(t *testing.T) {
	url, p := serve(t, lively(t)), browser.Open(t)
	for _, size := range [][2]int{{360, 740}, {768, 1024}, {1280, 900}} {
		p.Look(size[0], size[1], false)
		p.Go(url)
		rowsAre(p, 50, "10,001 ports")
		p.Eval(`document.querySelector(".open").click()`, nil)
		p.Until(`document.querySelector(".detail .scroll")`)
		var width int
		if p.Eval(`document.documentElement.scrollWidth`, &width); width > size[0] {
			var wide []string
			p.Eval(`[...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll *"))`+
				`.map((e) => e.tagName + "." + e.className).slice(0, 8)`, &wide)
			t.Errorf("%d wide in a window of %d: %q", width, size[0], wide)
		}
	}
}

// TestBrowserPictures writes the pictures of docs/, if it is told where; it always finds that there is something to see, light and dark.
func TestBrowserPictures(t *testing.T) {
	url, p := serve(t, lively(t)), browser.Open(t)
	sizes := map[string]int{}
	for _, picture := range []struct {
		name          string
		width, height int
		dark          bool
	}{{"status.png", 1200, 1640, false}, {"status-dark.png", 1200, 1640, true}, {"status-phone.png", 390, 844, false}} {
		p.Look(picture.width, picture.height, picture.dark)
		p.Go(url)
		rowsAre(p, 50, "10,001 ports")
		p.Until(`document.querySelectorAll("#plot circle.partial").length > 0`)
		p.Eval(`(document.getElementById("q").value = "pay gateway", document.getElementById("search").requestSubmit())`, nil)
		p.Until(`document.getElementById("found").textContent.startsWith("156 of")`)
		p.Eval(`document.getElementById("plot").focus()`, nil)
		p.Press("End", "ArrowLeft")
		p.Eval(`document.activeElement.blur()`, nil)
		p.Eval(`document.querySelector(".open").click()`, nil)
		p.Until(`document.querySelector(".detail .scroll")`)
		if picture.width < 600 {
			p.Eval(`document.getElementById("services").scrollIntoView({ behavior: "instant" })`, nil)
		}
		png := p.Picture()
		sizes[picture.name] = len(png)
		if *screenshots != "" {
			if err := os.WriteFile(filepath.Join(*screenshots, picture.name), png, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, size := range sizes {
		if size < 20_000 || size > 400_000 {
			t.Errorf("%s: %d bytes", name, size)
		}
	}
}
