// Command judges lets programs of others judge what Sluice ships: kustomize and Helm render it, Prometheus, its
// operator and Grafana read it. It is a module of its own, so that none of them becomes a dependency of Sluice.
//
//	judges kustomize DIR                 what kubectl apply -k DIR would apply
//	judges helm CHART <VALUES            what helm install would apply; VALUES is YAML
//	judges rules <OBJECTS                the rules of PrometheusRules, as JSON; all of OBJECTS must be types of the operator, to the letter
//	judges dashboard <DASHBOARD          the panels of a dashboard that is right by Grafana's schema, as JSON
//	judges promql <EXPRESSIONS           what each asks for; both are JSON
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	var verdict any
	var err error
	switch {
	case len(args) == 2 && args[0] == "kustomize":
		return writeText(out)(kustomize(args[1]))
	case len(args) == 2 && args[0] == "helm":
		return writeText(out)(helm(args[1], in))
	case len(args) == 1 && args[0] == "rules":
		verdict, err = rules(in)
	case len(args) == 1 && args[0] == "dashboard":
		verdict, err = panels(in)
	case len(args) == 1 && args[0] == "promql":
		verdict, err = selectors(in)
	default:
		return fmt.Errorf("unknown command %q", args)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(verdict)
}

func writeText(out io.Writer) func([]byte, error) error {
	return func(text []byte, err error) error {
		if err == nil {
			_, err = out.Write(text)
		}
		return err
	}
}
