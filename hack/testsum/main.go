// Command testsum runs suites of Go tests and says what ran. A skipped test, or a suite in which
// nothing ran, fails: what is not tested must not look as if it were.
package main

import (
	"bufio"
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// suites collects the flag -suite, 'name: arguments of go test', in order.
type suites []suite

type suite struct {
	name string
	args []string
}

func (s *suites) String() string { return fmt.Sprint(*s) }

// Set adds a suite.
func (s *suites) Set(v string) error {
	name, args, ok := strings.Cut(v, ":")
	if !ok {
		return fmt.Errorf("suite %q: want 'name: arguments of go test'", v)
	}
	*s = append(*s, suite{name: strings.TrimSpace(name), args: strings.Fields(args)})
	return nil
}

func main() {
	var all suites
	flag.Var(&all, "suite", "'name: arguments of go test'; may be repeated")
	flag.Parse()

	var summary, why []string
	var failed error
	for _, s := range all {
		fmt.Printf("== %s\n", s.name)
		r := newReport(os.Stdout)
		t, err := s.run(r)
		why = append(why, r.why...)
		summary = append(summary, fmt.Sprintf("%-32s %s", s.name, t))
		failed = cmp.Or(failed, err)
	}
	fmt.Printf("== summary\n%s\n", strings.Join(summary, "\n"))
	if failed != nil {
		fmt.Println(strings.Join(why, "\n"))
		fmt.Println("FAILED:", failed)
		os.Exit(1)
	}
}

// command are the arguments of go. A leading -C, for a module of its own, must come first.
func (s suite) command() []string {
	test := []string{"test"}
	args := s.args
	if len(args) > 1 && args[0] == "-C" {
		test, args = append(test, args[:2]...), args[2:]
	}
	return append(append(test, "-json", "-count=1", "-timeout", "20m"), args...)
}

// run runs go test, never satisfied with cached results (the kernel is no input that Go knows), and reports a line for each package, and all that failed or skipped tests said.
func (s suite) run(r *report) (tally, error) {
	start := time.Now()
	cmd := exec.Command("go", s.command()...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return tally{}, err
	}
	if err := cmd.Start(); err != nil {
		return tally{}, fmt.Errorf("start go test: %w", err)
	}
	scan := bufio.NewScanner(out)
	scan.Buffer(nil, 16<<20)
	for scan.Scan() {
		r.line(scan.Bytes())
	}
	if err := scan.Err(); err != nil {
		return r.tally, fmt.Errorf("%s: read test output: %w", s.name, err)
	}
	err = cmd.Wait()
	r.tally.took = time.Since(start)
	if v := r.tally.verdict(); v != nil {
		err = v
	}
	if err != nil {
		return r.tally, fmt.Errorf("%s: %w", s.name, err)
	}
	return r.tally, nil
}
