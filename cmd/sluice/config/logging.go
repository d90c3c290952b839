package config

import (
	"errors"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register" // the log format json
)

// AddLogFlags makes the flags that say how to log, the same as kube-proxy's.
func (o *Options) AddLogFlags(fs *pflag.FlagSet) {
	logsapi.AddFlags(&o.Kube.Logging, fs)
}

// setLogging changes what flags say about logging in the configuration of a file; the patterns of --vmodule come before
// those of the file.
func (o *Options) setLogging(l *logsapi.LoggingConfiguration) {
	fromFile := l.VModule
	l.VModule = nil
	into := pflag.NewFlagSet("", pflag.ContinueOnError)
	logsapi.AddFlags(l, into)
	o.flags.Visit(func(f *pflag.Flag) {
		if target := into.Lookup(f.Name); target != nil {
			_ = target.Value.Set(f.Value.String()) // it has taken that text once
		}
	})
	l.VModule = append(l.VModule, fromFile...)
}

// StartLogging logs from now on as the options say. Each process may call it with one configuration only.
func (o *Options) StartLogging() error {
	logsapi.ReapplyHandling = logsapi.ReapplyHandlingIgnoreUnchanged
	gates, err := o.logGates()
	if err != nil {
		return err
	}
	return logsapi.ValidateAndApplyAsField(&o.Kube.Logging, gates, o.logPath())
}

// checkLogging adds what is wrong with the logging section.
func (o *Options) checkLogging(c *checker) {
	gates, err := o.logGates()
	if err != nil {
		c.note("featureGates", err)
		return
	}
	for _, problem := range logsapi.Validate(&o.Kube.Logging, gates, o.logPath()) {
		c.problems = append(c.problems, errors.New(problem.Error()))
	}
}

func (o *Options) logPath() *field.Path { return field.NewPath(kind).Child("logging") }

// logGates has the gates that the library for logging asks for.
func (o *Options) logGates() (featuregate.FeatureGate, error) {
	gates := featuregate.NewFeatureGate()
	if err := logsapi.AddFeatureGates(gates); err != nil {
		return nil, err
	}
	for _, g := range o.gates(&checker{}) {
		if g.Name != allowServiceExternalIPs {
			if err := gates.SetFromMap(map[string]bool{g.Name: g.Enabled}); err != nil {
				return nil, err
			}
		}
	}
	return gates, nil
}
