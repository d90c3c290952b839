package lab

import "testing"

func TestSlowness(t *testing.T) {
	for value, want := range map[string]int{"": 1, "1": 1, "4": 4} {
		if got, err := parseSlowness(value); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", value, got, err, want)
		}
	}
	for _, value := range []string{"0", "-1", "1.5", "slow"} {
		if got, err := parseSlowness(value); err == nil {
			t.Errorf("%q: got %d, want an error", value, got)
		}
	}
}
