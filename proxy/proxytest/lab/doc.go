// Package lab builds small networks of Linux network namespaces for packet tests: a node under
// test with pods on it, a second node with pods behind it, a client outside of the cluster, and the
// world behind the node's default route. Servers in it say who they are and whom they saw; probes
// say what became of a connection.
//
//	                   client 192.168.50.100-105
//	                     │ eth0
//	pod-a 10.1.0.10 ─┐   │
//	pod-b 10.1.0.11 ─┼─ node ─ eth1 ─ remote 192.168.60.2 (pods 10.1.1.10, 10.1.1.11, 10.1.128.0/17)
//	pod-c 10.1.0.12 ─┘   │ eth2
//	                   world (every other address)
//
// All addresses are planned in IPv4; the IPv6 twin of an address a.b.c.d is fd00::a.b.c.d, see In. So a
// test that is written for one family serves both.
//
// Everything happens inside the test's process: the namespaces have no name in the file system and
// vanish with it, however it ends. It needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN).
package lab
