package main

import (
	"math"
	"slices"
	"time"
)

// quantile is the smallest sample that at least the share q of all samples does not exceed; 0 without samples.
func quantile(samples []time.Duration, q float64) time.Duration {
	if len(samples) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(samples))
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

func p50(samples []time.Duration) time.Duration { return quantile(samples, 0.50) }
func p99(samples []time.Duration) time.Duration { return quantile(samples, 0.99) }

// median is the lower one of those in the middle; not a number without samples.
func median(samples []float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	return slices.Sorted(slices.Values(samples))[(len(samples)-1)/2]
}

// ratio is a ÷ b, not a number if b is 0.
func ratio(a, b float64) float64 {
	if b == 0 {
		return math.NaN()
	}
	return a / b
}
