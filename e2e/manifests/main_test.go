package manifests

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sluice-proxy/sluice/e2e/suite"
)

// What TestMain builds.
var (
	sluiceBinary string
	judges       string // see e2e/judges
)

var root = filepath.Join("..", "..")

var builtJudges = flag.String("judges", "", "path of the program of e2e/judges, instead of one that is built")

func TestMain(m *testing.M) {
	os.Exit(suite.Main(m, []string{suite.APIServer, suite.KubeProxy}, func(dir, sluice string) error {
		sluiceBinary, judges = sluice, *builtJudges
		if judges != "" {
			return nil
		}
		judges = filepath.Join(dir, "judges")
		out, err := exec.Command("go", "-C", filepath.Join(root, "e2e", "judges"), "build", "-o", judges, ".").CombinedOutput()
		if err != nil {
			return fmt.Errorf("build judges: %w\n%s", err, out)
		}
		return nil
	}))
}
