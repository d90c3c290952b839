// Package preflight looks at a node before Sluice runs there, or when something is odd: what each mode needs and whether it is
// there, and what on the node would get in the way. It reads; only the trial of a mode writes, to tables that are gone when it
// ends. It knows no Service.
package preflight
