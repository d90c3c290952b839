// Package xtables is the boundary between the iptables mode and the kernel: the only package there that
// runs programs or opens sockets.
//
// It knows tables, chains and rules, and which of the two backends of iptables is in use. It does not
// know Services, and it does not know what rules mean.
package xtables
