// Package proxytest holds the scenarios that every mode must pass: API objects, facts of a node,
// packets, and what must become of them. Run plays them in the real kernel, in the network of
// package lab, through the same tracker, policy and builder that the program uses.
//
// A scenario knows no mode. Which rules of a Service it shows is part of it; docs/rules.md lists
// them, and a test here keeps that list and the table equal.
package proxytest
