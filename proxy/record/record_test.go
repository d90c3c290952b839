package record

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/explain"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// addrs are some addresses; the zero value stands for none.
var addrs = []netip.Addr{
	{}, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::1"), netip.IPv6Unspecified(),
}

// known are the values of types that not every value is one of.
var known = map[reflect.Type]*rapid.Generator[any]{
	reflect.TypeFor[proxy.Family]():        anyOf(proxy.Families[:]...),
	reflect.TypeFor[proxy.Protocol]():      anyOf(protocols...),
	reflect.TypeFor[proxy.FrontendKind]():  anyOf(kinds...),
	reflect.TypeFor[proxy.Verdict]():       anyOf(verdicts...),
	reflect.TypeFor[proxy.Pool]():          anyOf(pools...),
	reflect.TypeFor[proxy.PodSourceKind](): anyOf(proxy.PodSourceNone, proxy.PodSourcePrefix, proxy.PodSourceInterface, proxy.PodSourceInterfacePrefix),
	reflect.TypeFor[netip.Addr]():          anyOf(addrs...),
	reflect.TypeFor[netip.AddrPort]():      anyOf(netip.AddrPort{}, netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("[fd00::1]:65535")),
	reflect.TypeFor[netip.Prefix]():        anyOf(netip.Prefix{}, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::/0")),
	reflect.TypeFor[time.Time]():           anyOf(time.Time{}, time.Unix(1_700_000_000, 7).UTC()),
}

func anyOf[T any](values ...T) *rapid.Generator[any] {
	return rapid.Map(rapid.SampledFrom(values), func(v T) any { return v })
}

// fill gives every field of a value something, those that a later version has included.
func fill(t *rapid.T, v reflect.Value) {
	if g := known[v.Type()]; g != nil {
		v.Set(reflect.ValueOf(g.Draw(t, v.Type().Name())))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i))
		}
	case reflect.Slice:
		n := rapid.IntRange(-1, 3).Draw(t, "length")
		if n < 0 {
			return // there is none
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(t, v.Index(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.String:
		v.SetString(rapid.SampledFrom([]string{"", "a", "web", "<é\n\"", "x-y.z"}).Draw(t, "text"))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case reflect.Int64:
		v.SetInt(rapid.Int64().Draw(t, "number"))
	case reflect.Uint16, reflect.Uint32:
		v.SetUint(rapid.Uint64Range(0, 65535).Draw(t, "number"))
	default:
		t.Fatalf("what is %v to be?", v.Type())
	}
}

func draw[T any](t *rapid.T) T {
	var value T
	fill(t, reflect.ValueOf(&value).Elem())
	return value
}

func drawRecord(t *rapid.T) Record {
	r := Record{Taken: time.Unix(1_700_000_000, 0).UTC(), Program: "v1", Mode: "ipvs"}
	for _, f := range proxy.Families {
		if rapid.Bool().Draw(t, "has family") {
			node := draw[proxy.Node](t)
			node.Family = f
			ports := map[proxy.ServicePortName]*proxy.ServicePort{}
			half := Family{Relay: rapid.Bool().Draw(t, "relay")}
			for range rapid.IntRange(0, 3).Draw(t, "ports") {
				port := draw[proxy.ServicePort](t)
				ports[port.Name] = &port
				half.SetAside = append(half.SetAside, proxy.SetAside{Name: port.Name, Err: errors.New("no memory")})
			}
			half.Snapshot = proxy.NewSnapshot(&node, ports)
			r.Families = append(r.Families, half)
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "inputs") {
		in := draw[policy.Input](t)
		if rapid.Bool().Draw(t, "no Service") {
			in.Service = nil
		}
		r.Inputs = append(r.Inputs, in)
	}
	SortInputs(r.Inputs)
	return r
}

// Nothing that a snapshot or an input has may be lost on the way, nor the difference between no list and an empty one.
func TestWhatIsWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawRecord(t)
		var file bytes.Buffer
		if err := Write(&file, want); err != nil {
			t.Fatal(err)
		}
		text := file.String()
		got, err := Read(&file)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		for i := range want.Families {
			w, g := want.Families[i], got.Families[i]
			if !reflect.DeepEqual(w.Snapshot.Node(), g.Snapshot.Node()) || w.Snapshot.Len() != g.Snapshot.Len() {
				t.Fatalf("wrote %+v, read %+v", w.Snapshot.Node(), g.Snapshot.Node())
			}
			for name, port := range w.Snapshot.All() {
				if !reflect.DeepEqual(port, g.Snapshot.Get(name)) {
					t.Fatalf("wrote %+v, read %+v", port, g.Snapshot.Get(name))
				}
			}
			w.Snapshot, g.Snapshot = nil, nil
			if !reflect.DeepEqual(w, g) {
				t.Fatalf("wrote %+v, read %+v", w, g)
			}
		}
		families := len(want.Families)
		want.Families, got.Families = nil, got.Families[families:]
		if len(got.Families) != 0 {
			t.Fatalf("there are %d more", len(got.Families))
		}
		if got.Families = nil; !reflect.DeepEqual(want, got) {
			t.Fatalf("wrote %+v, read %+v", want, got)
		}
	})
}

func TestARecordThatIsCutOffIsNoRecord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var file bytes.Buffer
		if err := Write(&file, drawRecord(t)); err != nil {
			t.Fatal(err)
		}
		whole := file.Bytes()
		cut := rapid.IntRange(0, len(whole)-2).Draw(t, "bytes") // without the last newline it is complete
		if _, err := Read(bytes.NewReader(whole[:cut])); err == nil {
			t.Fatalf("%d of %d bytes are taken for a record", cut, len(whole))
		}
	})
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	const head = `{"sluice":{"recordVersion":1,"taken":"2026-01-01T00:00:00Z","version":"v1","mode":"ipvs"}}`
	node := `{"family":"IPv4","node":{"podSource":{"kind":"none","prefix":""},"ip":"","nodePorts":{}}}`
	for text, want := range map[string]string{
		"":                               "cut off",
		"{}":                             "does not begin as one does",
		"PK":                             "object 1",
		head:                             "cut off",
		head + `{"end":2}`:               "has 1 objects, and not 2",
		`{"sluice":{"recordVersion":2}}`: "form 2, and this Sluice reads form 1",
		head + `{"family":"IPv5"}`:       `"IPv5" is none of [IPv4 IPv6]`,
		head + `{"family":"IPv6","servicePort":{}}`:                                                                       "IPv6 has no node, or two",
		head + node + node:                                                                                                "IPv4 has no node, or two",
		head + node + `{"family":"IPv4","servicePort":{"protocol":"quic"}}`:                                               `"quic" is none of`,
		head + node + `{"family":"IPv4","servicePort":{"protocol":"tcp","frontends":[{"kind":"x"}]}}`:                     `"x" is none of`,
		head + node + `{"family":"IPv4","setAside":{"protocol":""}}`:                                                      `"" is none of`,
		head + `{"family":"IPv4","node":{"podSource":{"kind":"guess","prefix":""},"ip":"","nodePorts":{}}}`:               `"guess" is no way`,
		head + `{"input":{"slices":[{"family":"x"}]}}`:                                                                    `"x" is none of`,
		head + `{"input":{"slices":[{"family":"IPv4","ports":[{"protocol":"x"}]}]}}`:                                      `"x" is none of`,
		head + `{"input":{"service":{"created":"2026-01-01T00:00:00Z","clusterIPs":["",""],"ports":[{"protocol":"x"}]}}}`: `"x" is none of`,
	} {
		if _, err := Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

func TestInputsAreFoundByName(t *testing.T) {
	r := Record{Inputs: []policy.Input{{Name: proxy.ServiceName{Namespace: "b", Name: "x"}, Service: &policy.Service{}}, {Name: proxy.ServiceName{Namespace: "a", Name: "y"}}}}
	SortInputs(r.Inputs)
	if in := r.Input(proxy.ServiceName{Namespace: "b", Name: "x"}); in.Service == nil {
		t.Errorf("got %+v", in)
	}
	if in := r.Input(proxy.ServiceName{Namespace: "b", Name: "a"}); in.Service != nil || in.Name.Name != "a" {
		t.Errorf("got %+v", in)
	}
}

func TestFailuresToWriteAreTold(t *testing.T) {
	in, out := io.Pipe()
	_ = in.Close()
	if err := Write(out, Record{}); err == nil {
		t.Error("nobody reads, and that is no error")
	}
}

// A file comes from elsewhere: whatever it holds is read, or refused, and what is read can be explained and written again.
func FuzzRead(f *testing.F) {
	for seed := range 5 {
		var file bytes.Buffer
		if err := Write(&file, rapid.Custom(drawRecord).Example(seed)); err != nil {
			f.Fatal(err)
		}
		f.Add(file.Bytes())
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Read(bytes.NewReader(text))
		if err != nil {
			return
		}
		for _, family := range r.Families {
			view := explain.View{Snapshot: family.Snapshot, SetAside: family.SetAside, Relay: family.Relay, Input: r.Input}
			for name, port := range family.Snapshot.All() {
				_ = explain.WriteService(io.Discard, view.Service(name.Service()))
				for _, frontend := range port.Frontends {
					p := explain.Packet{From: netip.MustParseAddr("10.0.0.9"), To: frontend.Addr, Protocol: name.Protocol}
					_ = explain.WriteText(io.Discard, view.Packet(p))
				}
			}
		}
		var again bytes.Buffer
		if err := Write(&again, r); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(&again); err != nil {
			t.Fatalf("what was written again is not read: %v", err)
		}
	})
}
