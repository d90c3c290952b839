package proxytest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the column of scenarios in docs/rules.md")

const rulesFile = "../../docs/rules.md"

// allRules are the numbers that exist.
var allRules = func() []string {
	var all []string
	for _, span := range [][2]int{
		{1, 17}, {20, 26}, {30, 46}, {50, 55}, {60, 72}, {80, 91}, {95, 98}, {100, 108}, {110, 117},
		{120, 133}, {140, 149}, {150, 156}, {160, 166}, {170, 173}, {180, 182},
	} {
		for n := span[0]; n <= span[1]; n++ {
			all = append(all, fmt.Sprintf("R%d", n))
		}
	}
	return all
}()

// row is a line of the table of rules.
type row struct {
	rule, short, scenarios, also, kubeProxy string
}

var rowLine = regexp.MustCompile(`(?m)^\| (R\d+) \| (.+) \| (.+) \| (.+) \| (.+) \|$`)

func (r row) String() string {
	return fmt.Sprintf("| %s | %s | %s | %s | %s |", r.rule, r.short, r.scenarios, r.also, r.kubeProxy)
}

func readRows(t *testing.T) (string, []row) {
	t.Helper()
	text, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	for _, m := range rowLine.FindAllStringSubmatch(string(text), -1) {
		rows = append(rows, row{m[1], m[2], m[3], m[4], m[5]})
	}
	return string(text), rows
}

// scenariosOf are the names of the scenarios that show a rule, as the table has them.
func scenariosOf(rule string) string {
	var names []string
	for _, s := range Scenarios() {
		if slices.Contains(s.Rules, rule) {
			names = append(names, s.Name)
		}
	}
	if names == nil {
		return "-"
	}
	return strings.Join(names, "; ")
}

func TestEveryRuleIsInTheTableOnce(t *testing.T) {
	_, rows := readRows(t)
	var listed []string
	for _, r := range rows {
		listed = append(listed, r.rule)
	}
	if diff := cmp.Diff(allRules, listed); diff != "" {
		t.Errorf("rules that exist, and those of %s (-want +got):\n%s", rulesFile, diff)
	}
}

func TestEveryRuleIsShown(t *testing.T) {
	_, rows := readRows(t)
	for _, r := range rows {
		if r.scenarios == "-" && r.also == "-" {
			t.Errorf("%s has neither a scenario nor a test nor a reason", r.rule)
		}
	}
}

func TestTableNamesTheScenarios(t *testing.T) {
	text, rows := readRows(t)
	for _, r := range rows {
		want := scenariosOf(r.rule)
		if *update {
			old := r.String()
			r.scenarios = want
			text = strings.Replace(text, old, r.String(), 1)
		}
		if r.scenarios != want {
			t.Errorf("%s has the scenarios %q, not %q; -update writes them", r.rule, want, r.scenarios)
		}
	}
	if *update {
		if err := os.WriteFile(rulesFile, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestScenariosNameKnownRules(t *testing.T) {
	for _, s := range Scenarios() {
		if len(s.Rules) == 0 {
			t.Errorf("scenario %q shows no rule", s.Name)
		}
		for _, rule := range s.Rules {
			if !slices.Contains(allRules, rule) {
				t.Errorf("scenario %q names %s, which is no rule", s.Name, rule)
			}
		}
	}
}

var testName = regexp.MustCompile("`([a-z0-9/_]+)\\.(Test[A-Za-z0-9]+)`")

func TestTableNamesTestsThatExist(t *testing.T) {
	_, rows := readRows(t)
	for _, r := range rows {
		if r.also == "-" || strings.HasPrefix(r.also, "reason: ") {
			continue
		}
		named := testName.FindAllStringSubmatch(r.also, -1)
		if len(named) == 0 {
			t.Errorf("%s: %q names no test and gives no reason", r.rule, r.also)
		}
		for _, m := range named {
			if !testExists(t, m[1], m[2]) {
				t.Errorf("%s: there is no %s in %s", r.rule, m[2], m[1])
			}
		}
	}
}

func testExists(t *testing.T, pkg, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../..", pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "func "+name+"(") {
			return true
		}
	}
	return false
}
