package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-proxy/config/v1alpha1"
)

// fieldsOf are the fields of a section, with the names that a file has for them. Sections that are explained as a whole
// are one field.
func fieldsOf(section reflect.Type, prefix string) []string {
	var names []string
	for f := range section.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		deep := f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[metav1.Duration]()
		switch name = prefix + name; {
		case f.Anonymous:
		case deep && name != "logging" && name != "winkernel":
			names = append(names, fieldsOf(f.Type, name+".")...)
		default:
			names = append(names, name)
		}
	}
	return names
}

func TestEveryFlagAndFieldIsDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	explained := func(name string) {
		t.Helper()
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/configuration.md does not explain %s", name)
		}
	}
	fields := fieldsOf(reflect.TypeFor[v1alpha1.KubeProxyConfiguration](), "")
	if len(fields) < 45 {
		t.Errorf("only %d fields found: %q", len(fields), fields)
	}
	for _, field := range fields {
		explained(field)
	}
	newFlags(NewOptions(nil)).VisitAll(func(f *pflag.Flag) { explained("--" + f.Name) })
}

// The table that says what a problem is called, and which flags --config makes void, is complete.
func TestEveryFlagIsOfKubeProxyOrOurOwn(t *testing.T) {
	own, logging := pflag.NewFlagSet("", pflag.ContinueOnError), pflag.NewFlagSet("", pflag.ContinueOnError)
	o := NewOptions(nil)
	o.Own.addFlags(own)
	o.AddLogFlags(logging)
	seen := map[string]bool{}
	newFlags(NewOptions(nil)).VisitAll(func(f *pflag.Flag) {
		if _, ofKube := fieldOf(f.Name); ofKube == (own.Lookup(f.Name) != nil || logging.Lookup(f.Name) != nil) {
			t.Errorf("--%s: in the table of kube-proxy's flags: %t", f.Name, ofKube)
		}
		seen[f.Name] = true
	})
	known := map[string]bool{}
	for _, field := range fieldsOf(reflect.TypeFor[v1alpha1.KubeProxyConfiguration](), "") {
		known[field] = true
	}
	for flag, field := range fields {
		if !seen[flag] {
			t.Errorf("there is no flag --%s", flag)
		}
		if field != "" && !known[field] {
			t.Errorf("--%s: there is no field %s", flag, field)
		}
	}
}
