package status

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/explain"
)

// detailed is how many endpoints are told of each port of a Service.
const detailed = 500

// service is the answer to what the node does for one Service: what explain says.
type service struct {
	Ports json.RawMessage `json:"ports"`
	Left  int             `json:"left"` // endpoints that are not told
}

// service answers name (NAMESPACE/NAME).
func (p *page) service(r *http.Request) (any, error) {
	namespace, name, ok := strings.Cut(r.URL.Query().Get("name"), "/")
	if !ok {
		return nil, badRequest("name is not NAMESPACE/NAME")
	}
	var answer service
	var ports []explain.PortAnswer
	for _, l := range p.look() {
		for _, port := range l.Service(proxy.ServiceName{Namespace: namespace, Name: name}) {
			told := min(detailed, len(port.Candidates))
			answer.Left += len(port.Candidates) - told
			port.Candidates = port.Candidates[:told]
			ports = append(ports, port)
		}
	}
	var text bytes.Buffer
	if err := explain.WriteServiceJSON(&text, ports); err != nil {
		return nil, err
	}
	answer.Ports = text.Bytes()
	return answer, nil
}
