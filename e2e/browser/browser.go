// Package browser drives a headless Chromium, so that tests see a page as a person would. It speaks the DevTools protocol over a pair of
// pipes: there is no port, and nothing that could be reached from elsewhere.
package browser

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// programs are what Chromium is called.
var programs = []string{"chromium-headless-shell", "chromium", "google-chrome"}

// patience is how long anything may take: a busy machine starts a browser slowly.
const patience = time.Minute

// Page is a tab. It is for one test.
type Page struct {
	t       testing.TB
	conn    *conn
	session string
}

// Open starts a browser that ends with the test, with an empty tab. A machine without one fails the test.
func Open(t testing.TB) *Page {
	t.Helper()
	dir, err := os.MkdirTemp("", "browser")
	if err != nil {
		t.Fatal(err)
	}
	cmd, c, err := start(dir)
	if err != nil {
		t.Fatalf("start Chromium, which `make deps` installs: %v", errors.Join(err, os.RemoveAll(dir)))
	}
	p := &Page{t: t, conn: c}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait() // it was killed
		c.close()
		// Its children may write for a moment longer.
		for range 100 {
			if os.RemoveAll(dir) == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	var target struct{ TargetID string }
	p.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var session struct{ SessionID string }
	p.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session)
	p.session = session.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		p.call(domain+".enable", nil, nil)
	}
	return p
}

// start runs the browser with both ends of its pipes: it reads file 3 and writes file 4.
func start(dir string) (*exec.Cmd, *conn, error) {
	i := slices.IndexFunc(programs, func(name string) bool { _, err := exec.LookPath(name); return err == nil })
	if i < 0 {
		return nil, nil, fmt.Errorf("none of %v is there", programs)
	}
	theirIn, ourOut, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	ourIn, theirOut, err := os.Pipe()
	if err != nil {
		return nil, nil, errors.Join(err, theirIn.Close(), ourOut.Close())
	}
	// Tests run as root, where its sandbox does not work; the pages are ours.
	cmd := exec.Command(programs[i], "--headless", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu", "--disable-dev-shm-usage",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--font-render-hinting=none",
		"--user-data-dir="+dir)
	cmd.Env = append(os.Environ(), "HOME="+dir, "TZ=UTC", "LANG=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it ends with its children
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	err = cmd.Start()
	_, _ = theirIn.Close(), theirOut.Close() // the child has its own
	if err != nil {
		return nil, nil, errors.Join(err, ourIn.Close(), ourOut.Close())
	}
	return cmd, newConn(ourIn, ourOut), nil
}

func (p *Page) call(method string, params, result any) {
	p.t.Helper()
	if err := p.conn.call(p.session, method, params, result); err != nil {
		p.t.Fatalf("%s: %v", method, err)
	}
}

// Go loads a page.
func (p *Page) Go(url string) {
	p.t.Helper()
	var result struct{ ErrorText string }
	p.call("Page.navigate", map[string]any{"url": url}, &result)
	if result.ErrorText != "" {
		p.t.Fatalf("%s: %s", url, result.ErrorText)
	}
}

// Eval is the value of a JavaScript expression, which may be a promise, in the form of Go's JSON.
func (p *Page) Eval(expression string, result any) {
	p.t.Helper()
	if err := p.eval(expression, result); err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
}

func (p *Page) eval(expression string, result any) error {
	var answer struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Exception struct{ Description string }
		}
	}
	err := p.conn.call(p.session, "Runtime.evaluate",
		map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true,
			"allowUnsafeEvalBlockedByCSP": false}, &answer)
	if err != nil {
		return err
	}
	if e := answer.ExceptionDetails; e != nil {
		return errors.New(e.Exception.Description)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Result.Value, result)
}

// Until waits until an expression is true.
func (p *Page) Until(expression string) {
	p.t.Helper()
	var last error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var is bool
		if last = p.eval("!!("+expression+")", &is); last == nil && is {
			return
		}
	}
	var text string
	_ = p.eval("document.body?.innerText ?? ''", &text) // it helps to understand, no more
	p.t.Fatalf("never true: %s (%v); the page says\n%s", expression, last, text)
}

// keys are those that make no letter.
var keys = map[string]int{"Tab": 9, "Enter": 13, "Home": 36, "End": 35, "ArrowLeft": 37, "ArrowRight": 39, "Backspace": 8}

// Press presses keys, one after the other.
func (p *Page) Press(names ...string) {
	p.t.Helper()
	for _, name := range names {
		down := map[string]any{"type": "keyDown", "key": name, "windowsVirtualKeyCode": keys[name], "code": name}
		switch {
		case name == "Enter":
			down["text"] = "\r"
		case keys[name] == 0:
			down["text"] = name
		}
		p.call("Input.dispatchKeyEvent", down, nil)
		p.call("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": name, "windowsVirtualKeyCode": keys[name], "code": name}, nil)
	}
}

// Type enters a text where the focus is.
func (p *Page) Type(text string) {
	p.t.Helper()
	p.call("Input.insertText", map[string]any{"text": text}, nil)
}

// Look sets the size of the window, in pixels, and whether the person prefers dark colours.
func (p *Page) Look(width, height int, dark bool) {
	p.t.Helper()
	p.call("Emulation.setDeviceMetricsOverride",
		map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	scheme := map[bool]string{false: "light", true: "dark"}[dark]
	p.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// Picture is a PNG of what the window shows.
func (p *Page) Picture() []byte {
	p.t.Helper()
	var shot struct{ Data string }
	p.call("Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
	picture, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		p.t.Fatal(err)
	}
	return picture
}

// Complaints is what the browser had to say against the pages so far: errors of scripts, breaches of a page's policy, what could not
// be loaded.
func (p *Page) Complaints() []string {
	var list []string
	for _, e := range p.conn.seen() {
		switch e.Method {
		case "Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed":
			list = append(list, e.Method+" "+string(e.Params))
		case "Runtime.consoleAPICalled":
			if strings.Contains(string(e.Params), `"type":"error"`) {
				list = append(list, e.Method+" "+string(e.Params))
			}
		}
	}
	return list
}

// Requested are the URLs that the pages asked for so far.
func (p *Page) Requested() []string {
	var list []string
	for _, e := range p.conn.seen() {
		var sent struct{ Request struct{ URL string } }
		if e.Method == "Network.requestWillBeSent" && json.Unmarshal(e.Params, &sent) == nil {
			list = append(list, sent.Request.URL)
		}
	}
	return list
}
