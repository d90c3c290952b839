package release

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const version = "v0.0.0-test"

// build builds a release in a folder.
func build(t *testing.T, dir string, env ...string) string {
	t.Helper()
	output := filepath.Join(t.TempDir(), "sluice")
	cmd := exec.Command(filepath.Join(dir, "hack", "build"), output)
	cmd.Env = append(append(os.Environ(), "VERSION="+version), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return output
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

var fromNothing = flag.Bool("from-nothing", false, "let the second build compile everything again, which takes minutes")

// Two builds have nothing in common but the source: neither the folder, nor git, nor the environment.
func TestSameSourceMakesTheSameBytes(t *testing.T) {
	here, _ := filepath.Abs(root)
	first := build(t, here)
	dir := filepath.Join(t.TempDir(), "another", "folder")
	buildContext(t, dir)
	env := []string{"GOFLAGS=-buildvcs=true", "CGO_ENABLED=1", "GOAMD64=v3", "TZ=Asia/Tokyo"}
	if *fromNothing {
		env = append(env, "GOCACHE="+t.TempDir())
	}
	second := build(t, dir, env...)
	if !bytes.Equal(read(t, first), read(t, second)) {
		t.Error("the two binaries differ")
	}
}

func TestReleaseNeedsNoLibraryAndKnowsItsVersion(t *testing.T) {
	here, _ := filepath.Abs(root)
	path := build(t, here)
	file, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("it is linked dynamically: %v", p.Type)
		}
	}
	out, err := exec.Command(path, "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "sluice "+version+"\n") {
		t.Errorf("sluice version (%v):\n%s", err, out)
	}
}

// bill is what the tests look at in a bill of materials.
type bill struct {
	BOMFormat, SpecVersion string
	Metadata               struct{ Component component }
	Components             []component
}

type component struct {
	Name, Version, Purl string
	Licenses            []struct{ License struct{ ID string } }
}

func TestBillOfMaterialsNamesEverything(t *testing.T) {
	here, _ := filepath.Abs(root)
	path := build(t, here)
	dir := t.TempDir()
	bom, licences := filepath.Join(dir, "bom.json"), filepath.Join(dir, "licences.txt")
	cmd := exec.Command("go", "run", "./hack/sbom", "-version", version, "-bom", bom, "-licences", licences, path)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var b bill
	if err := json.Unmarshal(read(t, bom), &b); err != nil {
		t.Fatal(err)
	}
	if b.BOMFormat != "CycloneDX" || b.Metadata.Component.Version != version {
		t.Errorf("it is about %v, in %s %s", b.Metadata.Component, b.BOMFormat, b.SpecVersion)
	}
	listed := map[string]bool{}
	for _, c := range append(b.Components, b.Metadata.Component) {
		listed[c.Name+" "+c.Version] = true
		if len(c.Licenses) == 0 || c.Purl == "" {
			t.Errorf("%s has licences %v and the address %q", c.Name, c.Licenses, c.Purl)
		}
		if title := "\n" + c.Name + " " + c.Version + ": "; !strings.Contains("\n"+string(read(t, licences)), title) {
			t.Errorf("no licence of %s is passed on", c.Name)
		}
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range info.Deps {
		if !listed[m.Path+" "+m.Version] {
			t.Errorf("%s %s is not listed", m.Path, m.Version)
		}
	}
	if !listed["std "+strings.TrimPrefix(info.GoVersion, "go")] {
		t.Error("the standard library is not listed")
	}
}
