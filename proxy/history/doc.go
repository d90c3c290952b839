// Package history remembers what the loop did lately, and what it knows of each family's state in the kernel, for people who ask. It
// takes a bounded amount of memory and knows neither modes nor the kernel.
package history
