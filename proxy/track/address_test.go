package track

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func TestParseAddrIsLenient(t *testing.T) {
	for text, want := range map[string]string{
		"172.30.0.41":         "172.30.0.41",
		" 172.30.0.41\t":      "172.30.0.41",
		"172.30.0.041":        "172.30.0.41",
		"010.180.00.001":      "10.180.0.1",
		"000.0000.00.0":       "0.0.0.0",
		"::ffff:192.0.2.1":    "192.0.2.1",
		"::ffff:192.0.02.001": "192.0.2.1",
		"2001:0db8::0001":     "2001:db8::1",
		"":                    "",
		"1.2.3":               "",
		"1.2.3.4.5":           "",
		"1.2..4":              "",
		"1.2.3.0256":          "",
		"1.2.3.-4":            "",
		"fe80::1%eth0":        "",
		"10.0.0.1; flush":     "",
		"localhost":           "",
	} {
		got, err := parseAddr(text)
		if want == "" && err == nil || want != "" && got.String() != want {
			t.Errorf("%q is %v, %v; want %q", text, got, err, want)
		}
	}
}

func TestParsePrefixIsLenient(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.0/24":          "192.0.2.0/24",
		" 192.0.2.77/24 ":       "192.0.2.0/24",
		"203.0.113.000/025":     "203.0.113.0/25",
		"2001:db8::1/32":        "2001:db8::/32",
		"::ffff:10.1.2.3/104":   "10.0.0.0/8",
		"::ffff:10.1.2.3/128":   "10.1.2.3/32",
		"0.0.0.0/0":             "0.0.0.0/0",
		"::/0":                  "::/0",
		"192.0.2.0":             "",
		"192.0.2.0/":            "",
		"192.0.2.0/33":          "",
		"192.0.2.0/+4":          "",
		"192.0.2.0/-1":          "",
		"192.0.2.0/99999999999": "",
		"fe80::1%eth0/64":       "",
		"/24":                   "",
		"":                      "",
	} {
		got, err := parsePrefix(text)
		if want == "" && err == nil || want != "" && got.String() != want {
			t.Errorf("%q is %v, %v; want %q", text, got, err, want)
		}
	}
}

// Whatever is accepted can stand in a rule: it is canonical, unmapped and without a zone.
func TestParsedValuesAreCanonical(t *testing.T) {
	text := rapid.OneOf(
		rapid.StringMatching(`[0-9]{1,4}(\.[0-9]{1,4}){3}(/[0-9]{1,3})?`),
		rapid.StringMatching(`[0-9a-f:.%]{1,20}(/[0-9]{1,3})?`),
		rapid.String(),
	)
	rapid.Check(t, func(t *rapid.T) {
		s := text.Draw(t, "text")
		if a, err := parseAddr(s); err == nil {
			if again, err := netip.ParseAddr(a.String()); err != nil || again != a || a.Is4In6() || a.Zone() != "" {
				t.Fatalf("%q became %v", s, a)
			}
		}
		if p, err := parsePrefix(s); err == nil {
			if again, err := netip.ParsePrefix(p.String()); err != nil || again != p || p != p.Masked() || p.Addr().Is4In6() {
				t.Fatalf("%q became %v", s, p)
			}
		}
	})
}
