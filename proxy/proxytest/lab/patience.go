package lab

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// slownessVariable is set in the environment by emulated machines: how many times slower they are.
const slownessVariable = "SLUICE_SLOWNESS"

// Patient is d on an ordinary machine, and a multiple of it on a slow one: every time that a test
// waits for something, or makes sure that nothing comes, is made by it. SLUICE_SLOWNESS in the
// environment is the factor, a whole number from 1.
func Patient(d time.Duration) time.Duration { return d * slowness() }

var slowness = sync.OnceValue(func() time.Duration {
	factor, err := parseSlowness(os.Getenv(slownessVariable))
	if err != nil {
		panic(err)
	}
	return time.Duration(factor)
})

func parseSlowness(value string) (int, error) {
	if value == "" {
		return 1, nil
	}
	factor, err := strconv.Atoi(value)
	if err != nil || factor < 1 {
		return 0, fmt.Errorf("%s is %q, want a whole number from 1", slownessVariable, value)
	}
	return factor, nil
}
