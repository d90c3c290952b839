package lab

import (
	"fmt"
	"net/netip"
)

// forwarding makes a namespace a router that stays silent about detours.
var forwarding = map[string]string{
	"net/ipv4/ip_forward":                  "1",
	"net/ipv6/conf/all/forwarding":         "1",
	"net/ipv4/conf/all/send_redirects":     "0",
	"net/ipv4/conf/default/send_redirects": "0",
}

// build makes the whole network.
func (l *Lab) build(cfg Config) error {
	nodeAddrs := []netip.Addr{NodeIP, NodeIP2, nodeRemote, nodeWorld}
	if cfg.Bridge {
		nodeAddrs = append(nodeAddrs, bridgeIP)
	}
	var err error
	if l.Node, err = l.host("node", nodeAddrs...); err != nil {
		return err
	}
	if err := l.Node.Sysctl(forwarding); err != nil {
		return err
	}
	if err := l.addClient(); err != nil {
		return fmt.Errorf("client: %w", err)
	}
	if err := l.addRemote(); err != nil {
		return fmt.Errorf("remote node: %w", err)
	}
	if err := l.addWorld(); err != nil {
		return fmt.Errorf("world: %w", err)
	}
	if err := l.addPods(cfg); err != nil {
		return fmt.Errorf("pods: %w", err)
	}
	return nil
}

func (l *Lab) addClient() (err error) {
	var addrs []netip.Addr
	for i := range 6 {
		addrs = append(addrs, plus(firstClient, i))
	}
	if l.Client, err = l.host("client", addrs...); err != nil {
		return err
	}
	if err := l.wire(end{l.Node.Namespace, "eth0"}, end{l.Client.Namespace, "eth0"}, ""); err != nil {
		return err
	}
	return steps(
		l.Node.address("eth0", ClientCIDR.Bits(), NodeIP, NodeIP2),
		l.Client.address("eth0", ClientCIDR.Bits(), addrs...),
		l.Client.route(anywhere, NodeIP, "eth0"),
		l.Client.disownLoopback,
	)
}

func (l *Lab) addRemote() (err error) {
	if l.Remote, err = l.host("remote", remoteIP); err != nil {
		return err
	}
	if err := l.Remote.Sysctl(forwarding); err != nil {
		return err
	}
	if err := l.wire(end{l.Node.Namespace, "eth1"}, end{l.Remote.Namespace, "eth0"}, ""); err != nil {
		return err
	}
	pods := []netip.Addr{firstRemote, firstRemote.Next()}
	l.RemotePods = []*Host{
		l.guest("remote-a", l.Remote.Namespace, pods[0]),
		l.guest("remote-b", l.Remote.Namespace, pods[1]),
	}
	l.Crowd = l.guest("crowd", l.Remote.Namespace, CrowdCIDR.Addr().Next())
	return steps(
		l.Node.address("eth1", linkRemote.Bits(), nodeRemote),
		l.Remote.address("eth0", linkRemote.Bits(), remoteIP),
		l.Remote.address("lo", 32, pods...),
		l.Remote.own(CrowdCIDR),
		l.Node.route(RemoteCIDR, remoteIP, "eth1"),
		l.Node.route(CrowdCIDR, remoteIP, "eth1"),
		l.Remote.route(anywhere, nodeRemote, "eth0"),
	)
}

func (l *Lab) addWorld() (err error) {
	if l.World, err = l.host("world", worldIP); err != nil {
		return err
	}
	if err := l.wire(end{l.Node.Namespace, "eth2"}, end{l.World.Namespace, "eth0"}, ""); err != nil {
		return err
	}
	return steps(
		l.Node.address("eth2", linkWorld.Bits(), nodeWorld),
		l.World.address("eth0", linkWorld.Bits(), worldIP),
		l.Node.route(anywhere, worldIP, "eth2"),
		l.World.route(ClusterCIDR, nodeWorld, "eth0"),
		l.World.route(ClientCIDR, nodeWorld, "eth0"),
		l.World.route(linkRemote, nodeWorld, "eth0"),
		l.World.own(anywhere),
	)
}

func (l *Lab) addPods(cfg Config) error {
	if cfg.Bridge {
		if err := l.addBridge(); err != nil {
			return err
		}
	}
	for i := range cfg.Pods {
		pod, err := l.host(fmt.Sprintf("%s-%c", PodPrefix, 'a'+i), plus(firstPod, i))
		if err != nil {
			return err
		}
		l.Pods = append(l.Pods, pod)
		attach := l.attachRouted
		if cfg.Bridge {
			attach = l.attachBridged
		}
		if err := attach(pod); err != nil {
			return fmt.Errorf("%s: %w", pod.Name, err)
		}
	}
	return nil
}

// steps runs steps until one fails.
func steps(all ...func() error) error {
	for _, step := range all {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
