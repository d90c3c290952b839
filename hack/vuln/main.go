// Command vuln runs govulncheck on packages, as releases are built, with the database at vuln.go.dev or, where that cannot be reached, with the copy
// that its authors publish as a Go module. If neither can be had it says that nothing was checked, and does not fail.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"
)

const (
	database = "https://vuln.go.dev"
	copied   = "golang.org/x/vulndb@latest"
	patience = 10 * time.Second
)

func main() {
	source, err := findDatabase()
	if err != nil {
		fmt.Printf("NOT CHECKED for vulnerabilities, no database can be had:\n%v\n", err)
		return
	}
	fmt.Println("Database:", source)
	args := append([]string{"tool", "-modfile=hack/tools/go.mod", "govulncheck", "-db", source}, os.Args[1:]...)
	cmd := exec.Command("hack/go", args...) // what is judged is the standard library, too
	cmd.Stderr = os.Stderr
	found, err := cmd.Output()
	_, _ = os.Stdout.Write(traces.ReplaceAll(found, nil))
	if err != nil {
		fmt.Fprintln(os.Stderr, "govulncheck:", err)
		os.Exit(1)
	}
}

// traces are the ways from our code to that of others, of which there are hundreds.
var traces = regexp.MustCompile(`(?m)^( +#\d+: .*| +Example traces found:)\n`)

// findDatabase is the URL of a database that can be read.
func findDatabase() (string, error) {
	unreachable := reach(database + "/index/db.json")
	if unreachable == nil {
		return database, nil
	}
	dir, err := download()
	if err != nil {
		return "", errors.Join(unreachable, err)
	}
	return "file://" + filepath.Join(dir, "data", "osv"), nil
}

func reach(url string) error {
	client := http.Client{Timeout: patience}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}

func download() (string, error) {
	out, err := exec.Command("go", "mod", "download", "-json", copied).Output()
	var module struct{ Dir, Error string }
	if json.Unmarshal(out, &module) != nil || module.Dir == "" {
		return "", fmt.Errorf("%s cannot be downloaded: %s", copied, cmp.Or(module.Error, fmt.Sprint(err)))
	}
	return module.Dir, nil
}
