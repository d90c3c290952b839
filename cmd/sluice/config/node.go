package config

import (
	"errors"
	"net/netip"
	"os"
	"strings"

	"github.com/sluice-proxy/sluice/proxy/nodeinfo"
)

// node is what is said of the node.
func (o *Options) node(c *checker, mark uint32, masqueradeAll bool) nodeinfo.Config {
	k := o.Kube
	name, err := nodeName(k.HostnameOverride)
	c.note("hostnameOverride", err)
	bind, ok := parseAddr(k.BindAddress)
	if !ok {
		c.add("bindAddress", "%q is not an IP address", k.BindAddress)
	}
	selection, err := nodeinfo.ParseNodePortSelection(k.NodePortAddresses)
	c.note("nodePortAddresses", err)
	return nodeinfo.Config{
		Name:               name,
		BindAddress:        bind,
		NodePorts:          selection,
		PodDetector:        o.podDetector(c),
		LocalhostNodePorts: *k.IPTables.LocalhostNodePorts,
		ServiceCIDRs:       prefixes(o.Own.ServiceCIDRs, func(format string, args ...any) { c.addFlag("service-cidrs", format, args...) }),
		MasqueradeAll:      masqueradeAll,
		MasqueradeMark:     mark,
		Standalone:         o.Own.ManifestDir != "",
	}
}

// nodeName is the name of this node's Node object.
func nodeName(override string) (string, error) {
	name := strings.ToLower(strings.TrimSpace(override))
	if override != "" && name == "" {
		return "", errors.New("is blank")
	}
	if name != "" {
		return name, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", err
	}
	if name = strings.ToLower(strings.TrimSpace(host)); name == "" {
		return "", errors.New("the host has no name, so this is required")
	}
	return name, nil
}

func (o *Options) podDetector(c *checker) nodeinfo.PodDetector {
	k := o.Kube
	d := nodeinfo.PodDetector{Mode: nodeinfo.DetectMode(k.DetectLocalMode)}
	switch d.Mode {
	case nodeinfo.ClusterCIDR:
		d.ClusterCIDRs = clusterCIDRs(c, k.ClusterCIDR)
	case nodeinfo.NodeCIDR:
		if o.Own.ManifestDir != "" {
			c.add("detectLocalMode", "NodeCIDR needs a Node object, and there is none with --manifest-dir")
		}
	case nodeinfo.BridgeInterface:
		d.Interface = interfaceName(c, "detectLocal.bridgeInterface", k.DetectLocal.BridgeInterface, d.Mode)
	case nodeinfo.InterfaceNamePrefix:
		d.Interface = interfaceName(c, "detectLocal.interfaceNamePrefix", k.DetectLocal.InterfaceNamePrefix, d.Mode)
	default:
		c.add("detectLocalMode", "%q is none of %v", k.DetectLocalMode, nodeinfo.DetectModes)
	}
	return d
}

// clusterCIDRs are the ranges of pods: none, one, or one of each IP family.
func clusterCIDRs(c *checker, text string) []netip.Prefix {
	if text == "" {
		return nil
	}
	wrong := func(format string, args ...any) { c.add("clusterCIDR", format, args...) }
	cidrs := prefixes(strings.Split(text, ","), wrong)
	if len(cidrs) > 2 || len(cidrs) == 2 && cidrs[0].Addr().Is4() == cidrs[1].Addr().Is4() {
		wrong("%s is not one CIDR, nor one of each IP family", text)
	}
	for _, p := range cidrs {
		if p.Bits() == 0 {
			wrong("%v would take everybody for a pod", p)
		}
	}
	return cidrs
}

// interfaceName checks a name, or the beginning of one, that becomes part of every Service's rules.
func interfaceName(c *checker, field, name string, mode nodeinfo.DetectMode) string {
	const longest = 15
	wrong := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`/:+!"'\`, r) }
	switch {
	case name == "":
		c.add(field, "is required by %s %s", c.name("detectLocalMode"), mode)
	case len(name) > longest, strings.ContainsFunc(name, wrong), strings.HasPrefix(name, "-"):
		c.add(field, "%q cannot be that of an interface", name)
	}
	return name
}
