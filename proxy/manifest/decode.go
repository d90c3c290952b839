package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
)

const (
	serviceKind = "Service"
	sliceKind   = "EndpointSlice"
)

// key identifies an object.
type key struct{ kind, namespace, name string }

func (k key) String() string { return k.kind + " " + k.namespace + "/" + k.name }

// object is a Service or an EndpointSlice, with defaults, and where it was found. It is immutable.
type object struct {
	key
	service *corev1.Service
	slice   *discoveryv1.EndpointSlice
	file    string
	line    int
}

func (o object) place() string { return fmt.Sprintf("%s:%d", o.file, o.line) }

// decode reads all objects of a file. Its error has a line for each mistake.
func decode(file string, content []byte) ([]object, error) {
	roots, err := documents(content)
	if err != nil {
		return nil, err
	}
	var objects []object
	var errs []error
	seen := map[key]int{}
	for _, root := range roots {
		o, err := decodeObject(root)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		o.file, o.line = file, root.Line
		if first, twice := seen[o.key]; twice {
			errs = append(errs, fmt.Errorf("line %d: %s is in line %d already", o.line, o.key, first))
		}
		seen[o.key] = o.line
		objects = append(objects, o)
	}
	return objects, errors.Join(errs...)
}

// documents are the roots of all objects of a file; those of a v1 List one by one.
func documents(content []byte) ([]*yaml.Node, error) {
	var roots []*yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var document yaml.Node
		switch err := decoder.Decode(&document); {
		case errors.Is(err, io.EOF):
			return roots, nil
		case err != nil:
			return nil, yamlError(err)
		}
		root := resolve(document.Content[0])
		switch {
		case root.Tag == "!!null":
		case scalar(root, "kind") == "List" && scalar(root, "apiVersion") == "v1":
			items, err := listItems(root)
			if err != nil {
				return nil, err
			}
			roots = append(roots, items...)
		default:
			roots = append(roots, root)
		}
	}
}

func listItems(list *yaml.Node) ([]*yaml.Node, error) {
	items, _ := find(list, "items")
	if items == nil || items.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("line %d: items: must be a list", list.Line)
	}
	roots := make([]*yaml.Node, len(items.Content))
	for i, item := range items.Content {
		roots[i] = resolve(item)
	}
	return roots, nil
}

func decodeObject(root *yaml.Node) (object, error) {
	if root.Kind != yaml.MappingNode {
		return object{}, fmt.Errorf("line %d: must be an object with apiVersion and kind", root.Line)
	}
	switch kind, version := scalar(root, "kind"), scalar(root, "apiVersion"); {
	case kind == serviceKind && version == "v1":
		s := &corev1.Service{}
		if err := decodeInto(root, s); err != nil {
			return object{}, err
		}
		setServiceDefaults(s)
		o := object{key: key{kind, s.Namespace, s.Name}, service: s}
		return o, locate(root, validateService(s))
	case kind == sliceKind && version == "discovery.k8s.io/v1":
		s := &discoveryv1.EndpointSlice{}
		if err := decodeInto(root, s); err != nil {
			return object{}, err
		}
		setSliceDefaults(s)
		o := object{key: key{kind, s.Namespace, s.Name}, slice: s}
		return o, locate(root, validateSlice(s))
	default:
		return object{}, fmt.Errorf("line %d: kind %q of apiVersion %q is none of Service (v1), "+
			"EndpointSlice (discovery.k8s.io/v1) and List (v1)", root.Line, kind, version)
	}
}

// decodeInto is strict: a field that the type does not have, in this spelling, is an error.
func decodeInto(root *yaml.Node, into any) error {
	var value any
	if err := root.Decode(&value); err != nil {
		return yamlError(err)
	}
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("line %d: %w", root.Line, err)
	}
	strict, err := kjson.UnmarshalStrict(data, into)
	if err != nil {
		return typeError(root, err)
	}
	for i, e := range strict {
		strict[i] = fmt.Errorf("line %d: %w", lineOf(root, quoted(e.Error())), e)
	}
	return errors.Join(strict...)
}

// locate puts the line before each mistake.
func locate(root *yaml.Node, mistakes field.ErrorList) error {
	var errs []error
	for _, m := range mistakes {
		errs = append(errs, fmt.Errorf("line %d: %w", lineOf(root, m.Field), m))
	}
	return errors.Join(errs...)
}

// typeError says which field has a value of the wrong type. The decoder names fields without indices.
func typeError(root *yaml.Node, err error) error {
	var mismatch *json.UnmarshalTypeError
	if !errors.As(err, &mismatch) {
		return fmt.Errorf("line %d: %w", root.Line, err)
	}
	return fmt.Errorf("line %d: %s: must be of type %s, not %s", lineOf(root, mismatch.Field), mismatch.Field, mismatch.Type, mismatch.Value)
}

// yamlError brings the parser's errors, of which there may be several, into our form.
func yamlError(err error) error {
	var several *yaml.TypeError
	if !errors.As(err, &several) {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	var errs []error
	for _, text := range several.Errors {
		errs = append(errs, errors.New(text))
	}
	return errors.Join(errs...)
}

// quoted is the first text in quotes.
func quoted(text string) string {
	_, rest, _ := strings.Cut(text, `"`)
	inside, _, _ := strings.Cut(rest, `"`)
	return inside
}

// step matches one step of a field path: a name, or an index or key in brackets.
var step = regexp.MustCompile(`[^.\[\]]+|\[[^\]]*\]`)

// lineOf is the line of the field of that path ("spec.ports[0].port"), or of the nearest parent that
// is there. An index that the path leaves out counts as the first that leads on.
func lineOf(root *yaml.Node, path string) int {
	node, line := root, root.Line
	for _, name := range step.FindAllString(path, -1) {
		name = strings.Trim(name, "[]")
		next, at := find(node, name)
		if next == nil && node.Kind == yaml.SequenceNode {
			for _, item := range node.Content {
				if next, at = find(resolve(item), name); next != nil {
					break
				}
			}
		}
		if next == nil {
			return line
		}
		node, line = next, at
	}
	return line
}

// find is the value of a key or index, and the line where that key or item begins; nil if there is none.
func find(node *yaml.Node, name string) (value *yaml.Node, line int) {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == name {
				return resolve(node.Content[i+1]), node.Content[i].Line
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(node.Content) {
			return resolve(node.Content[i]), node.Content[i].Line
		}
	}
	return nil, 0
}

// resolve follows an alias.
func resolve(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func scalar(node *yaml.Node, name string) string {
	if c, _ := find(node, name); c != nil {
		return c.Value
	}
	return ""
}
