package main

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestQuantileIsTheSampleOfThatRank(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[99-i] = time.Duration(i + 1)
	}
	tests := []struct {
		samples []time.Duration
		q       float64
		want    time.Duration
	}{
		{nil, 0.5, 0},
		{[]time.Duration{7}, 0.5, 7},
		{[]time.Duration{7}, 0.99, 7},
		{[]time.Duration{2, 1}, 0.5, 1},
		{[]time.Duration{3, 1, 2}, 0.5, 2},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
		{hundred[:20], 0.99, 100}, // the slowest
	}
	for _, test := range tests {
		if got := quantile(test.samples, test.q); got != test.want {
			t.Errorf("quantile %v of %d samples is %v, want %v", test.q, len(test.samples), got, test.want)
		}
	}
}

func TestQuantileCoversItsShareAndNotMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		samples := rapid.SliceOfN(rapid.Map(rapid.IntRange(0, 50), func(n int) time.Duration { return time.Duration(n) }), 1, 200).Draw(t, "samples")
		q := rapid.Float64Range(0.01, 1).Draw(t, "q")
		before := slices.Clone(samples)
		got := quantile(samples, q)
		atMost, below := 0, 0
		for _, s := range samples {
			if s <= got {
				atMost++
			}
			if s < got {
				below++
			}
		}
		n := float64(len(samples))
		if float64(atMost) < q*n || float64(below) >= q*n {
			t.Fatalf("quantile %v is %v: %d below, %d at most, of %d", q, got, below, atMost, len(samples))
		}
		if !slices.Equal(samples, before) {
			t.Fatal("samples were sorted in place")
		}
	})
}

func TestRatioOfNothing(t *testing.T) {
	if got := ratio(1, 4); got != 0.25 {
		t.Errorf("1 ÷ 4 is %v", got)
	}
	if got := ratio(1, 0); !math.IsNaN(got) {
		t.Errorf("1 ÷ 0 is %v, want not a number", got)
	}
}
