package release

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// root is the repository, seen from here.
var root = filepath.Join("..", "..")

// buildContext copies into dir what `docker build` would be given.
func buildContext(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	var patterns []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			patterns = append(patterns, line)
		}
	}
	source := os.DirFS(root)
	err = fs.WalkDir(source, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{".git", "bin", "e2e"}, name):
			return fs.SkipDir // nothing of these is wanted, and they are large
		case entry.IsDir() || ignored(name, patterns):
			return nil
		}
		return copyFile(filepath.Join(dir, name), filepath.Join(root, name))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func copyFile(to, from string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, info.Mode())
}

// ignored follows Docker: the last pattern that fits a file, or a folder that it is in, decides.
func ignored(name string, patterns []string) bool {
	out := false
	for _, p := range patterns {
		p, again := strings.CutPrefix(p, "!")
		if fits(name, p) {
			out = !again
		}
	}
	return out
}

func fits(name, pattern string) bool {
	anywhere, nameAlone := strings.CutPrefix(pattern, "**/")
	for ; name != "."; name = path.Dir(name) {
		subject := name
		if nameAlone {
			subject = path.Base(name)
		}
		if matched, _ := path.Match(anywhere, subject); matched {
			return true
		}
	}
	return false
}

func TestIgnoredFollowsDocker(t *testing.T) {
	patterns := []string{"*", "!go.mod", "!cmd", "!hack/build", "**/testdata", "**/*_test.go"}
	for name, want := range map[string]bool{
		"README.md": true, "go.mod": false, "docs/go.mod": true, "cmd/sluice/main.go": false, "cmd/sluice/main_test.go": true, "main_test.go": true,
		"cmd/sluice/testdata/a/b": true, "hack/build": false, "hack/deps": true,
	} {
		if got := ignored(name, patterns); got != want {
			t.Errorf("%s: ignored %v, want %v", name, got, want)
		}
	}
}
