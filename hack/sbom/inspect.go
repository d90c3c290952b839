package main

import (
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// binary is a program and what it consists of.
type binary struct {
	version string
	sum     [sha256.Size]byte
	parts   []part // the first is the program itself
}

// part is a module.
type part struct {
	path, version string
	files         []licenceFile
	licences      []string // SPDX's names of what the files are
}

// licenceFile is a file that a module's licence asks to pass on.
type licenceFile struct{ name, text string }

// inspect reads a binary of that version, and the licences of its modules from the module cache, to which what is missing is downloaded.
func inspect(path, version string) (*binary, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	b := &binary{version: version, sum: sha256.Sum256(content)}
	root, err := goEnv("GOMOD")
	if err != nil {
		return nil, err
	}
	own, err := newPart(info.Main.Path, b.version, filepath.Dir(root))
	if err != nil {
		return nil, err
	}
	dirs, err := directories(info)
	if err != nil {
		return nil, err
	}
	b.parts = append(b.parts, own)
	for _, m := range info.Deps {
		m := *cmp.Or(m.Replace, m)
		p, err := newPart(m.Path, m.Version, dirs[m.Path+"@"+m.Version])
		if err != nil {
			return nil, err
		}
		b.parts = append(b.parts, p)
	}
	toolchain, err := goEnv("GOROOT")
	if err != nil {
		return nil, err
	}
	std, err := newPart("std", strings.TrimPrefix(info.GoVersion, "go"), toolchain)
	if err != nil {
		return nil, err
	}
	b.parts = append(b.parts, std)
	return b, nil
}

func goEnv(name string) (string, error) {
	out, err := exec.Command("go", "env", name).Output()
	return strings.TrimSpace(string(out)), err
}

// directories says where the modules of a binary are, by module@version.
func directories(info *buildinfo.BuildInfo) (map[string]string, error) {
	args := []string{"mod", "download", "-json"}
	for _, m := range info.Deps {
		m := cmp.Or(m.Replace, m)
		args = append(args, m.Path+"@"+m.Version)
	}
	out, err := exec.Command("go", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("go mod download: %w", err)
	}
	dirs := map[string]string{}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var m struct{ Path, Version, Dir string }
		err := decoder.Decode(&m)
		if errors.Is(err, io.EOF) {
			return dirs, nil
		}
		if err != nil {
			return nil, err
		}
		dirs[m.Path+"@"+m.Version] = m.Dir
	}
}

func newPart(path, version, dir string) (part, error) {
	p := part{path: path, version: version}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return p, err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !isLicence(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return p, err
		}
		p.files = append(p.files, licenceFile{e.Name(), string(text)})
		if !strings.HasPrefix(strings.ToUpper(e.Name()), "NOTICE") {
			names := classify(string(text))
			if len(names) == 0 {
				return p, fmt.Errorf("%s %s: nobody has said that the licence in %s is acceptable", path, version, e.Name())
			}
			p.licences = append(p.licences, names...)
		}
	}
	if len(p.licences) == 0 {
		return p, fmt.Errorf("%s %s has no licence", path, version)
	}
	slices.Sort(p.licences)
	p.licences = slices.Compact(p.licences)
	return p, nil
}
