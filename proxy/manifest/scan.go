package manifest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/proxy"
)

// scan reads the directory and tells the sink of every difference.
func (s *Source) scan(ctx context.Context) {
	names, err := s.names()
	if err != nil {
		if problem := err.Error(); problem != s.problem {
			s.problem = problem
			klog.FromContext(ctx).Error(err, "Manifest directory not read, what was last read stays in force")
		}
		return
	}
	s.problem = ""
	for name := range s.files {
		if !slices.Contains(names, name) {
			delete(s.files, name)
		}
	}
	for _, name := range names {
		s.read(ctx, name)
	}
	s.tell(s.owned(ctx))
}

// names are the files to read, sorted. Hidden files are not: kubelet keeps the data of a mounted
// ConfigMap in some, editors their own.
func (s *Source) names() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name)) {
			continue
		}
		if info, err := os.Stat(filepath.Join(s.dir, name)); err == nil && info.Mode().IsRegular() {
			names = append(names, name)
		}
	}
	return names, nil
}

// read takes over the file's content if it is new and right. A mistake is reported once.
func (s *Source) read(ctx context.Context, name string) {
	f := s.files[name]
	if f == nil {
		f = &file{}
		s.files[name] = f
	}
	path := filepath.Join(s.dir, name)
	content, err := os.ReadFile(path)
	if err != nil {
		if problem := err.Error(); problem != f.problem {
			f.problem = problem
			klog.FromContext(ctx).Error(err, "Manifest not read, its last good content stays in force", "file", path)
		}
		return
	}
	if len(content) == 0 && len(f.objects) > 0 {
		// Somebody is about to write it, or has run out of disk.
		if problem := "empty"; problem != f.problem {
			f.problem = problem
			klog.FromContext(ctx).Error(nil, "Manifest is empty, its last good content stays in force until the file is removed", "file", path)
		}
		return
	}
	f.problem = ""
	if string(content) == f.content {
		return
	}
	f.content = string(content)
	objects, err := decode(name, content)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Manifest not used, its last good content stays in force", "file", path)
		return
	}
	f.objects = objects
	klog.FromContext(ctx).V(1).Info("Read manifest", "file", path, "objects", len(objects))
}

// owned is every object, once. Of several files that hold the same one, the file that did so first keeps
// it, and of files that are new at the same time the first by name.
func (s *Source) owned(ctx context.Context) map[key]object {
	holders := map[key][]object{}
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		for _, o := range s.files[name].objects {
			holders[o.key] = append(holders[o.key], o)
		}
	}
	owned := make(map[key]object, len(holders))
	conflicts := map[string]bool{}
	for k, objects := range holders {
		owner := objects[0]
		if was := slices.IndexFunc(objects, func(o object) bool { return o.file == s.told[k].file }); was >= 0 {
			owner = objects[was]
		}
		owned[k] = owner
		for _, o := range objects {
			if o.file != owner.file {
				s.report(ctx, conflicts, owner, o)
			}
		}
	}
	s.conflicts = conflicts
	return owned
}

// report logs a conflict unless the last scan did, and notes it in now.
func (s *Source) report(ctx context.Context, now map[string]bool, owner, other object) {
	text := fmt.Sprintf("%s is in %s line %d and in %s line %d", owner.key, owner.file, owner.line, other.file, other.line)
	now[text] = true
	if !s.conflicts[text] {
		klog.FromContext(ctx).Error(nil, "The same object is in two manifests, one of them is not used",
			"object", owner.String(), "used", owner.place(), "notUsed", other.place())
	}
}

// tell brings the sink from what it was told to owned.
func (s *Source) tell(owned map[key]object) {
	for k := range s.told {
		if _, still := owned[k]; still {
			continue
		}
		if k.kind == serviceKind {
			s.sink.DeleteService(proxy.ServiceName{Namespace: k.namespace, Name: k.name})
		} else {
			s.sink.DeleteEndpointSlice(k.namespace, k.name)
		}
	}
	for k, o := range owned {
		switch was := s.told[k]; {
		case o.service != nil && o.service != was.service:
			s.sink.SetService(o.service)
		case o.slice != nil && o.slice != was.slice:
			s.sink.SetEndpointSlice(o.slice)
		}
	}
	s.told = owned
}
