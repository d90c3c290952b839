// Package neighbour runs the real kube-proxy on a lab's node, for tests of what becomes of packets where the rules of two
// proxies stand side by side. An API server of a few lines tells it of the objects of a scenario: the real one would refuse
// many of those, and take its time.
package neighbour
