package manifests

import (
	"cmp"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// operate is docs/operate.md.
func operate(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", "operate.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section is what stands below a heading.
func section(t *testing.T, heading string) string {
	t.Helper()
	_, text, found := strings.Cut(operate(t), "\n"+heading+"\n")
	if !found {
		t.Fatalf("no %q", heading)
	}
	level, _, _ := strings.Cut(heading, " ")
	text, _, _ = strings.Cut(text, "\n"+level+" ")
	return text
}

// quoted are all words in backticks that match a pattern as a whole.
func quoted(text, pattern string) []string {
	var all []string
	for _, match := range regexp.MustCompile("`("+pattern+")`").FindAllStringSubmatch(text, -1) {
		all = append(all, match[1])
	}
	return all
}

// source is the program, parsed.
func source(t *testing.T) []*ast.File {
	t.Helper()
	var files []*ast.File
	for _, dir := range []string{"cmd", "proxy", "iptables", "nftables", "ipvs", "nfwatch", "conntrack", "preflight", "kubeproxy", "nft"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() && entry.Name() == "proxytest" {
				return cmp.Or(err, fs.SkipDir)
			}
			if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			files = append(files, file)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// literals are the texts in the program.
func literals(files []*ast.File) map[string]bool {
	found := map[string]bool{}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				text, _ := strconv.Unquote(l.Value)
				found[text] = true
			}
			return true
		})
	}
	return found
}

// logLines are the messages that the program logs with -v=2 or less.
func logLines(files []*ast.File) []string {
	var lines []string
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if message := logged(call); message != "" {
				lines = append(lines, message)
			}
			return true
		})
	}
	return lines
}

// logged is the message of x.Info("…", …) and x.Error(err, "…", …), unless x is y.V(n) with an n above 2, or package http.
func logged(call *ast.CallExpr) string {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || len(call.Args) == 0 {
		return ""
	}
	position, known := map[string]int{"Info": 0, "Error": 1}[method.Sel.Name]
	if !known || len(call.Args) <= position {
		return ""
	}
	switch receiver := method.X.(type) {
	case *ast.CallExpr:
		if of, ok := receiver.Fun.(*ast.SelectorExpr); ok && of.Sel.Name == "V" && !levelTwo(receiver.Args) {
			return ""
		}
	case *ast.Ident:
		if receiver.Name == "http" {
			return "" // an answer
		}
	}
	literal, ok := call.Args[position].(*ast.BasicLit)
	if !ok {
		return ""
	}
	message, _ := strconv.Unquote(literal.Value)
	return message
}

func levelTwo(args []ast.Expr) bool {
	level, ok := args[0].(*ast.BasicLit)
	return ok && level.Value <= "2"
}

func TestEveryLogLineIsExplained(t *testing.T) {
	files := source(t)
	explained := quoted(section(t, "## Logs"), "[A-Z][^`]*")
	lines := logLines(files)
	if len(lines) < 20 {
		t.Fatalf("only %d log lines found in the source: %q", len(lines), lines)
	}
	for _, line := range lines {
		if !slices.Contains(explained, line) {
			t.Errorf("docs/operate.md does not explain %q", line)
		}
	}
	texts := literals(files)
	for _, line := range explained {
		// Names of alerts and levels of the log are no lines.
		if !texts[line] && line != "E" && !strings.HasPrefix(line, "Sluice") {
			t.Errorf("docs/operate.md explains %q, which nobody logs", line)
		}
	}
}

// endings are the files whose errors end the program.
var endings = []string{"cmd/sluice/run.go", "cmd/sluice/client.go", "proxy/nodeinfo/wait.go", "conntrack/tune.go"}

func TestEveryErrorThatEndsItIsExplained(t *testing.T) {
	var explained []string
	for _, row := range regexp.MustCompile(`(?m)^\|[^|]*\|`).FindAllString(section(t, "## Errors that end it"), -1) {
		explained = append(explained, quoted(row, "[^`-][^`]*")...)
	}
	in := func(text string) func(string) bool {
		return func(part string) bool { return strings.Contains(text, part) }
	}
	for _, path := range endings {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range errorTexts(file) {
			if !slices.ContainsFunc(explained, in(text)) {
				t.Errorf("docs/operate.md does not explain the error %q", text)
			}
		}
	}
	all := strings.Join(slices.Collect(maps.Keys(literals(source(t)))), "\n")
	for _, part := range explained {
		if !in(all)(part) {
			t.Errorf("docs/operate.md explains %q, which no error says", part)
		}
	}
}

// errorTexts are how the messages of fmt.Errorf and errors.New begin.
func errorTexts(file *ast.File) []string {
	var texts []string
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		if f, ok := call.Fun.(*ast.SelectorExpr); !ok || f.Sel.Name != "Errorf" && (f.Sel.Name != "New" || len(call.Args) != 1) {
			return true
		}
		message := call.Args[0]
		for sum, ok := message.(*ast.BinaryExpr); ok; sum, ok = message.(*ast.BinaryExpr) {
			message = sum.X
		}
		if l, ok := message.(*ast.BasicLit); ok && l.Kind == token.STRING {
			text, _ := strconv.Unquote(l.Value)
			texts = append(texts, text)
		}
		return true
	})
	return texts
}

func TestDocumentedEventsExist(t *testing.T) {
	texts := literals(source(t))
	reasons := quoted(section(t, "## Events"), "[A-Z][A-Za-z]+")
	for _, reason := range reasons {
		if !texts[reason] {
			t.Errorf("nobody records an Event %q", reason)
		}
	}
	for _, reason := range []string{"NotServed", "AddressConflict", "Starting"} {
		if !slices.Contains(reasons, reason) {
			t.Errorf("docs/operate.md does not explain the Event %s", reason)
		}
	}
}

func TestDocumentedMetricsExist(t *testing.T) {
	name := regexp.MustCompile(`\b(?:kubeproxy|sluice)_[a-z_]+`)
	text := operate(t)
	texts := literals(source(t))
	mentioned := map[string]bool{}
	for _, metric := range name.FindAllString(text, -1) {
		metric = strings.TrimSuffix(metric, "_bucket")
		mentioned[metric] = true
		if !texts[metric] {
			t.Errorf("there is no metric %s", metric)
		}
	}
	// Those that nobody knows from kube-proxy are all explained.
	for own := range texts {
		if name.MatchString(own) && strings.HasPrefix(own, "sluice_") && !mentioned[own] {
			t.Errorf("docs/operate.md does not explain the metric %s", own)
		}
	}
}

func TestDocumentedFlagsExist(t *testing.T) {
	var help string
	for _, command := range [][]string{{"--help"}, {"check", "--help"}, {"cleanup", "--help"}, {"explain", "--help"}, {"bundle", "--help"}, {"diff", "--help"}, {"trace", "--help"}} {
		help += output(t, sluiceBinary, command...)
	}
	flags := quoted(operate(t), "--[a-z-]+(?:=[^`]*)?")
	if len(flags) == 0 {
		t.Fatal("no flags found")
	}
	for _, flag := range flags {
		flag, _, _ = strings.Cut(flag, "=")
		if !strings.HasSuffix(flag, "-") { // else it stands for all that begin so
			flag += " "
		}
		if !strings.Contains(help, flag) {
			t.Errorf("there is no flag %s", flag)
		}
	}
}

func TestDocumentedAlertsExist(t *testing.T) {
	var known []string
	for _, a := range alerts(t) {
		known = append(known, a.Alert)
	}
	for _, match := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(section(t, "## Alerts"), -1) {
		if !slices.Contains(known, match[1]) {
			t.Errorf("there is no alert %s", match[1])
		}
	}
}
