package explain

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
)

func TestKernelInWords(t *testing.T) {
	good := proxy.Object{Name: "map m { a }", Holds: "jump lb-2"}
	used := proxy.Object{Name: "rule r", Count: &proxy.Count{Packets: 3, Bytes: 180}}
	busy := proxy.Object{Name: "backend b", Holds: "weight 1", Count: &proxy.Count{Active: 2, Inactive: 1}}
	bad := proxy.Object{Name: "map m { b }", Differs: &proxy.Difference{Kind: proxy.Altered, Object: "map m { b }", Detail: "x instead of y"}}
	for name, test := range map[string]struct {
		kernel  *Kernel
		agrees  bool
		verdict string
		text    string
	}{
		"nobody looked": {nil, true, "", ""},
		"all is well": {&Kernel{Mode: "nftables", Objects: []proxy.Object{good, used, busy}}, true, "agrees, in mode nftables", `
RIGHT  HOLDS                                        IN THE KERNEL
yes    jump lb-2                                    map m { a }
yes    3 packets, 180 bytes                         rule r
yes    weight 1; 2 active and 1 ending connections  backend b
`},
		"something is wrong": {&Kernel{Mode: "ipvs", Objects: []proxy.Object{good, bad}}, false,
			"differs from that: of what implements it in mode ipvs, 1 are not as they should be", `
RIGHT  HOLDS                    IN THE KERNEL
no     altered, x instead of y  map m { b }
yes    jump lb-2                map m { a }
`},
		"it cannot be looked at": {&Kernel{Mode: "ipvs", Err: errors.New("no socket")}, false, "not known: no socket", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.kernel.Agrees(); got != test.agrees {
				t.Errorf("agrees: %v", got)
			}
			if test.kernel != nil && test.kernel.verdict() != test.verdict {
				t.Errorf("got %q", test.kernel.verdict())
			}
			var b strings.Builder
			if err := test.kernel.write(&b); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.text, b.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestManyObjectsAreCutButForThoseThatAreWrong(t *testing.T) {
	k := &Kernel{Mode: "iptables"}
	for i := range 50 {
		k.Objects = append(k.Objects, proxy.Object{Name: fmt.Sprint("good ", i)})
	}
	for i := range 30 {
		name := fmt.Sprint("bad ", i)
		k.Objects = append(k.Objects, proxy.Object{Name: name, Differs: &proxy.Difference{Object: name}})
	}
	var b strings.Builder
	if err := k.write(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if strings.Count(text, "bad ") != 30 || strings.Count(text, "good ") != shownObjects || !strings.Contains(text, "… and 30 more") {
		t.Error(text)
	}
	if j := k.json(); len(j.Objects) != 80 || j.Agrees {
		t.Errorf("%+v", j)
	}
}
