package config

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/kube-proxy/config/v1alpha1"
	"sigs.k8s.io/yaml"
)

const kind = "KubeProxyConfiguration"

// removedFields are those that earlier versions of kube-proxy had, and that files in old clusters still hold. kube-proxy
// reads over them.
var removedFields = []string{"conntrack.max", "resourceContainer", "udpIdleTimeout"}

// decode reads a KubeProxyConfiguration, in YAML or JSON, without filling in defaults. Its error names every field that does not
// exist or is there twice. Removed are the fields that it read over.
func decode(content []byte) (k *v1alpha1.KubeProxyConfiguration, removed []string, err error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, nil, err
	}
	decoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	object, _, err := decoder.Decode(content, nil, nil)
	var wrong []error
	if strict, ok := runtime.AsStrictDecodingError(err); ok {
		removed, wrong = sortOut(strict.Errors())
	} else if err != nil {
		return nil, nil, err
	}
	if len(wrong) > 0 {
		return nil, removed, errors.Join(wrong...)
	}
	k, ok := object.(*v1alpha1.KubeProxyConfiguration)
	if !ok {
		return nil, nil, fmt.Errorf("it is a %T", object)
	}
	return k, removed, nil
}

var unknownField = regexp.MustCompile(`unknown field "(.*)"`)

// sortOut tells the names of removed fields from other errors.
func sortOut(errs []error) (removed []string, others []error) {
	for _, err := range errs {
		match := unknownField.FindStringSubmatch(err.Error())
		switch {
		case match == nil:
			others = append(others, errors.New(strings.TrimSpace(err.Error())))
		case slices.Contains(removedFields, match[1]):
			removed = append(removed, match[1])
		default:
			others = append(others, fmt.Errorf("%s.%s: there is no such field", kind, match[1]))
		}
	}
	return removed, others
}

// load replaces what the flags say by what the file says.
func (o *Options) load() error {
	content, err := os.ReadFile(o.ConfigFile)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	k, removed, err := decode(content)
	if err != nil {
		return fmt.Errorf("--config %s:\n%w", o.ConfigFile, err)
	}
	for _, name := range removed {
		o.note(name, "kube-proxy no longer has this field")
	}
	o.use(k, content)
	return nil
}

// use replaces what the flags say by k, but for the name of the node and what is said about logging.
func (o *Options) use(k *v1alpha1.KubeProxyConfiguration, content []byte) {
	setDefaults(k)
	if o.HostnameOverride != "" {
		k.HostnameOverride = o.HostnameOverride
	}
	o.setLogging(&k.Logging)
	setModeDefaults(k)
	o.Kube, o.content = k, content
	o.healthzPort, o.metricsPort = healthzPort, metricsPort // of addresses without one
}

// Write writes the configuration as a file that Sluice and kube-proxy take.
func (o *Options) Write() error {
	k := o.Kube.DeepCopy()
	if k.Mode == Auto {
		k.Mode = "" // kube-proxy's word for it
	}
	content, err := yaml.Marshal(k)
	if err != nil {
		return err
	}
	return os.WriteFile(o.WriteConfigTo, content, 0o644)
}
