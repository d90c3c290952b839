package nft

import (
	"fmt"
	"hash/fnv"
	"regexp"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/nfwatch"
)

// Forms are the forms in which the kernel holds rules, by their digests: a rule that was altered and kept its comment has another
// one. A Runner learns the forms of what it writes. Those of a table that it finds it has to take for right. The zero value knows
// none; it is safe for concurrent use.
type Forms struct {
	lock sync.Mutex
	of   map[string]uint64
}

// agree tells whether a rule has the form that others with its digest had, and remembers that of the first.
func (f *Forms) agree(digest string, form uint64) bool {
	f.lock.Lock()
	defer f.lock.Unlock()
	known, ok := f.of[digest]
	if !ok {
		if f.of == nil {
			f.of = map[string]uint64{}
		}
		f.of[digest] = form
	}
	return !ok || known == form
}

// forget is for rules that are written anew: another release of nft may say the same in another way.
func (f *Forms) forget() {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.of = nil
}

// learn takes the rules that were just written for right. Without it the next reader would.
func (r *Runner) learn() {
	r.forms.forget()
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	reader := &reader{Conn: c, family: r.family, name: r.table, schema: r.schema, forms: r.forms}
	_ = reader.rules(&State{Chains: map[string][]string{}})
}

// Forms are what the Runner knows.
func (r *Runner) Forms() *Forms { return r.forms }

// Knowing lets the Runner know what another one does. It gives the Runner back; nil changes nothing.
func (r *Runner) Knowing(forms *Forms) *Runner {
	if forms != nil {
		r.forms = forms
	}
	return r
}

// counting are expressions of rules in which the kernel keeps what changes with the packets.
var counting = map[string]bool{"counter": true, "limit": true, "quota": true, "last": true, "connlimit": true}

// anonymous is the name of a set that is part of a rule. The kernel numbers them as they come.
var anonymous = regexp.MustCompile(`__(set|map)\d+`)

// formOf is a number for the expressions of a rule.
func formOf(expressions []byte) uint64 {
	h := fnv.New64a()
	for _, x := range attributesOf(expressions) {
		name := nfwatch.AttrText(nfwatch.Nested(x.Data, unix.NFTA_EXPR_NAME))
		fmt.Fprintf(h, "%s\n", name)
		if counting[name] {
			continue
		}
		for _, a := range attributesOf(nfwatch.Nested(x.Data, unix.NFTA_EXPR_DATA)) {
			fmt.Fprintf(h, "%d %x\n", a.Type, anonymous.ReplaceAll(a.Data, []byte("__$1")))
		}
	}
	return h.Sum64()
}

// attributesOf are attributes as they are written, or all in one if they are none.
func attributesOf(data []byte) []netlink.Attribute {
	list, err := netlink.UnmarshalAttributes(data)
	if err != nil {
		return []netlink.Attribute{{Data: data}}
	}
	return list
}
