package ipvs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/proxy"
)

// Prepare implements proxy.Preparer.
func (m mode) Prepare(ctx context.Context, _ []proxy.Family) error {
	changes, failures := kernel.SetParams(m.cfg.Sysctls)
	logChanges(ctx, changes)
	if len(failures) > 0 {
		var errs []error
		for _, f := range failures {
			errs = append(errs, f.Err)
		}
		return fmt.Errorf("set parameters of IPVS: %w", errors.Join(errs...))
	}
	return m.setOthers(ctx, proxy.IPv4, kernel.NewIPVS(proxy.IPv4))
}

// set sets what is not of one family alone. Once the mode serves, parameters that it cannot set are no reason to stop: in most
// containers nobody can, and they were right at the start.
func (m mode) set(ctx context.Context, f proxy.Family, servers *kernel.IPVS) error {
	changes, failures := kernel.SetParams(m.cfg.Sysctls)
	logChanges(ctx, changes)
	m.stuck.take(ctx, failures)
	return m.setOthers(ctx, f, servers)
}

// setOthers sets what are no parameters.
func (m mode) setOthers(ctx context.Context, f proxy.Family, servers *kernel.IPVS) error {
	if changed, err := servers.SetTimeouts(ctx, m.cfg.Timeouts); err != nil {
		return err
	} else if changed {
		klog.FromContext(ctx).Info("Set the timeouts of IPVS", "tcp", m.cfg.Timeouts.TCP, "tcpFin", m.cfg.Timeouts.TCPFin, "udp", m.cfg.Timeouts.UDP)
	}
	if f == proxy.IPv4 {
		return m.compat(ctx)
	}
	return nil
}

func logChanges(ctx context.Context, changes []kernel.Change) {
	for _, c := range changes {
		klog.FromContext(ctx).Info("Set kernel parameter", "file", c.File, "was", c.Was, "value", c.Value)
	}
}

// compat makes the interface kube-ipvs0 if it is wanted.
func (m mode) compat(ctx context.Context) error {
	wanted := m.cfg.CompatInterface == CompatOn
	if m.cfg.CompatInterface == CompatAuto || m.cfg.CompatInterface == "" {
		var err error
		if wanted, err = kernel.HasCalico(); err != nil {
			return err
		}
	}
	if !wanted {
		return nil
	}
	made, err := kernel.AddCompatInterface()
	if made && err == nil {
		klog.FromContext(ctx).Info("Made an interface kube-ipvs0 without addresses, by which Calico knows that there is IPVS")
	}
	return err
}

// unmet are the parameters that are not as they were set. What could not be set is not among them, as it was named then.
func (m mode) unmet() []kernel.Change {
	look := kernel.WatchParams(m.cfg.Sysctls)
	defer look.Close()
	return slices.DeleteFunc(look.Wrong(), m.stuck.has)
}

// stuck are the parameters that could not be set, with the values that they had. It is safe for concurrent use.
type stuck struct {
	mu sync.Mutex
	is map[kernel.Change]bool
}

// take replaces them, and says which are new.
func (s *stuck) take(ctx context.Context, failures []kernel.Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := map[kernel.Change]bool{}
	for _, f := range failures {
		now[f.Change] = true
		if !s.is[f.Change] {
			klog.FromContext(ctx).Error(f.Err, "Serving with a kernel parameter that is wrong and cannot be set", "file", f.File, "value", f.Was, "want", f.Value)
		}
	}
	s.is = now
}

func (s *stuck) has(c kernel.Change) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.is[c]
}

// settingsWatch looks whether others changed what is not of one family alone.
type settingsWatch struct {
	mode
	params *kernel.ParamWatch
}

// watchSettings gives what begins to look. For both families one does, that of IPv4.
func (m mode) watchSettings(f proxy.Family) func() *settingsWatch {
	return func() *settingsWatch {
		if f != proxy.IPv4 {
			return nil
		}
		return &settingsWatch{m, kernel.WatchParams(m.cfg.Sysctls)}
	}
}

// timeoutLooker knows the timeouts of IPVS.
type timeoutLooker interface {
	HasTimeouts(ctx context.Context, t kernel.Timeouts) (bool, error)
}

// wrong says what is not as it was set, or "". What could not be set is not named again: nothing would come of it.
func (w *settingsWatch) wrong(ctx context.Context, look timeoutLooker) (string, error) {
	if w == nil {
		return "", nil
	}
	for _, c := range w.params.Wrong() {
		if !w.stuck.has(c) {
			return fmt.Sprintf("kernel parameter %s is %d instead of %d", c.File, c.Was, c.Value), nil
		}
	}
	if same, err := look.HasTimeouts(ctx, w.cfg.Timeouts); err != nil || same {
		return "", err
	}
	return "the timeouts of IPVS were changed", nil
}

func (w *settingsWatch) close() {
	if w != nil {
		w.params.Close()
	}
}
