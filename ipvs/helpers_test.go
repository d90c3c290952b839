package ipvs

import (
	"os"
	"testing"

	"sigs.k8s.io/knftables"
)

type transaction = knftables.Transaction

func writeFile(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
