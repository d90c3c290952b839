package record

import (
	"fmt"

	"github.com/sluice-proxy/sluice/proxy"
)

// What has words in the file. The words are those of the types' own String.
var (
	protocols = []proxy.Protocol{proxy.TCP, proxy.UDP, proxy.SCTP}
	kinds     = []proxy.FrontendKind{proxy.ClusterIP, proxy.LoadBalancerIP, proxy.ExternalIP, proxy.NodePort}
	verdicts  = []proxy.Verdict{proxy.Reject, proxy.Drop, proxy.Forward}
	pools     = []proxy.Pool{proxy.ClusterPool, proxy.LocalPool}
)

// parse finds which of all has a word.
func parse[T fmt.Stringer](all []T, word string) (T, error) {
	for _, value := range all {
		if value.String() == word {
			return value, nil
		}
	}
	return *new(T), fmt.Errorf("%q is none of %v", word, all)
}

// each is what becomes of each of a list; of no list becomes none, of an empty one an empty one.
func each[A, B any](list []A, f func(A) B) []B {
	if list == nil {
		return nil
	}
	result := make([]B, len(list))
	for i, x := range list {
		result[i] = f(x)
	}
	return result
}
