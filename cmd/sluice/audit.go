package main

import (
	"context"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/audit"
)

// audits compares a family's kernel every so often. What differs is said, and doubted, so that it is mended.
func (p *proxier) audits(ctx context.Context, f proxy.Family, doubt func(reason string)) {
	if p.cfg.AuditInterval == 0 {
		return
	}
	log := klog.FromContext(ctx)
	p.questions.audit.Rounds(ctx, f, p.cfg.AuditInterval, func(r audit.Round) {
		p.metrics.Audited(f, r.Found, r.Err)
		p.history.Audited(f, len(r.Found), r.Err)
		switch {
		case r.Err != nil:
			log.Error(r.Err, "Kernel not compared with what should be there")
		case len(r.Found) > 0:
			log.Info("Kernel is not as it should be", "differences", len(r.Found), "such as", audit.Text(r.Found))
			doubt("an audit found differences")
		default:
			log.V(2).Info("Compared the kernel with what should be there, they agree", "took", r.Took)
		}
	})
}
