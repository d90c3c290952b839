package audit

import (
	"context"
	"errors"
	"testing"

	"github.com/sluice-proxy/sluice/proxy"
)

// exhibition is a world that can show.
type exhibition struct {
	*world
	show func(look int) []proxy.Object
}

func (e exhibition) Show(context.Context, *proxy.Snapshot, *proxy.ServicePort, []proxy.Frontend) ([]proxy.Object, error) {
	e.looks++
	return e.show(e.looks), e.err
}

func (e exhibition) auditor() *Auditor {
	a := New(map[proxy.Family]proxy.Inspector{proxy.IPv4: e}, func(proxy.Family) *Applied { return e.applied })
	a.pause = 0
	return a
}

func TestWhatIsShownIsLookedAtTwiceIfItDiffers(t *testing.T) {
	good, bad := proxy.Object{Name: "a"}, proxy.Object{Name: "a", Differs: &proxy.Difference{Object: "a"}}
	for name, test := range map[string]struct {
		show  func(e exhibition, look int) proxy.Object
		wrong bool
		looks int
		err   error
	}{
		"it agrees":  {func(exhibition, int) proxy.Object { return good }, false, 1, nil},
		"it differs": {func(exhibition, int) proxy.Object { return bad }, true, 2, nil},
		"a change was on its way": {func(_ exhibition, look int) proxy.Object {
			if look == 1 {
				return bad
			}
			return good
		}, false, 2, nil},
		"the Service changed": {func(e exhibition, _ int) proxy.Object { e.next(); return bad }, false, 1, errChanged},
	} {
		t.Run(name, func(t *testing.T) {
			e := exhibition{world: &world{applied: &Applied{Snapshot: snapshot()}}}
			e.show = func(look int) []proxy.Object { return []proxy.Object{test.show(e, look)} }
			port := e.applied.Snapshot.Get(port)
			objects, err := e.auditor().Show(t.Context(), proxy.IPv4, port, nil)
			if !errors.Is(err, test.err) || err == nil && differs(objects[0]) != test.wrong || e.looks != test.looks {
				t.Errorf("%v, %v after %d looks", objects, err, e.looks)
			}
		})
	}
	w := &world{applied: &Applied{Snapshot: snapshot()}}
	if _, err := w.auditor().Show(t.Context(), proxy.IPv4, nil, nil); !errors.Is(err, ErrCannotShow) {
		t.Errorf("a mode that cannot: %v", err)
	}
}
