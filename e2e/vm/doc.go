// Package vm has the scripts that run a command in a virtual machine with a kernel of Debian's, for tests that
// need what the machine's own kernel lacks; see README.md. In Go it has its own tests, and tells others whether they run in it.
package vm
