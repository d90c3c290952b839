package suite

import (
	"io"
	"net/http"
	"time"

	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// Answer is a reply by HTTP.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Client is an HTTP client on a host that makes a connection for each request.
func Client(from *lab.Host) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: from.DialContext}}
}

// Get asks from a host.
func Get(from *lab.Host, url string) (Answer, error) {
	r, err := Client(from).Get(url)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = r.Body.Close() }()
	body, err := io.ReadAll(r.Body)
	return Answer{r.StatusCode, r.Header, string(body)}, err
}
