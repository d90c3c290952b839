package status

import (
	"bytes"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

// word is a part of a question in small letters. Only one that may be of an address is looked for in addresses, of which there
// are many.
type word struct {
	text    []byte
	address bool
}

// question has words that all must occur. It is for one goroutine.
type question struct {
	words []word
	text  []byte // scratch
}

func search(text string) *question {
	q := new(question)
	for _, part := range strings.Fields(strings.ToLower(text)) {
		q.words = append(q.words, word{[]byte(part), strings.Trim(part, "0123456789abcdef.:[]") == ""})
	}
	return q
}

// matches tells whether all words occur in a ServicePort's name, protocol, frontends or backends.
func (q *question) matches(port *proxy.ServicePort) bool {
	return !slices.ContainsFunc(q.words, func(w word) bool { return !q.occurs(w, port) })
}

func (q *question) occurs(w word, port *proxy.ServicePort) bool {
	n := port.Name
	q.text = append(q.text[:0], n.Namespace...)
	q.text = append(append(q.text, '/'), n.Name...)
	q.text = append(append(q.text, ':'), n.Port...)
	q.text = append(append(q.text, ' '), n.Protocol.String()...)
	if bytes.Contains(q.text, w.text) {
		return true
	}
	return w.address && (q.frontend(w, port.Frontends) || q.backend(w, port.Cluster) || q.backend(w, port.Local))
}

func (q *question) frontend(w word, list []proxy.Frontend) bool {
	return slices.ContainsFunc(list, func(f proxy.Frontend) bool {
		q.text = f.Addr.AppendTo(q.text[:0])
		return bytes.Contains(q.text, w.text)
	})
}

func (q *question) backend(w word, list []proxy.Backend) bool {
	return slices.ContainsFunc(list, func(b proxy.Backend) bool {
		q.text = b.Addr.AppendTo(q.text[:0])
		return bytes.Contains(q.text, w.text)
	})
}
