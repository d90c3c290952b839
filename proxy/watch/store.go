package watch

import (
	"maps"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// store passes on what a reflector puts into it, and keeps the objects to find those that a new list lacks. It
// is safe for concurrent use, and calls its functions one at a time.
type store[T any] struct {
	trim        func(*T)
	set, remove func(*T)
	first       sync.Once     // closes listed
	listed      chan struct{} // closed when the first list has been passed on
	heard

	mu      sync.Mutex
	objects map[string]*T // by namespace and name
}

func newStore[T any](trim, set, remove func(*T)) *store[T] {
	return &store[T]{trim: trim, set: set, remove: remove, listed: make(chan struct{}), objects: map[string]*T{}}
}

// Listed is closed when everything that there was at the start has been passed on.
func (s *store[T]) Listed() <-chan struct{} { return s.listed }

// UID is that of an object, by namespace and name; empty if there is none.
func (s *store[T]) UID(key string) types.UID {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, known := s.objects[key]; known {
		if object, ok := any(o).(metav1.Object); ok {
			return object.GetUID()
		}
	}
	return ""
}

// Transformer trims objects while others of the same list still come.
func (s *store[T]) Transformer() cache.TransformFunc {
	return func(object any) (any, error) {
		if o, ok := object.(*T); ok {
			s.trim(o)
		}
		return object, nil
	}
}

// Add implements cache.ReflectorStore.
func (s *store[T]) Add(object any) error {
	s.hear()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.put(object)
}

// Update implements cache.ReflectorStore.
func (s *store[T]) Update(object any) error { return s.Add(object) }

// Delete implements cache.ReflectorStore.
func (s *store[T]) Delete(object any) error {
	s.hear()
	s.mu.Lock()
	defer s.mu.Unlock()
	key, err := cache.MetaNamespaceKeyFunc(object)
	if o, known := s.objects[key]; known {
		delete(s.objects, key)
		s.remove(o)
	}
	return err
}

// Replace implements cache.ReflectorStore: what the list lacks was deleted while nobody watched.
func (s *store[T]) Replace(list []any, _ string) error {
	s.hear()
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.objects
	s.objects = make(map[string]*T, len(list))
	for _, object := range list {
		if err := s.put(object); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(old)) {
		if _, kept := s.objects[key]; !kept {
			s.remove(old[key])
		}
	}
	s.first.Do(func() { close(s.listed) })
	return nil
}

// Bookmark implements cache.ReflectorBookmarkStore: nothing has changed, and the watch works.
func (s *store[T]) Bookmark(string) error {
	s.hear()
	return nil
}

// Resync implements cache.ReflectorStore: it passes on everything again.
func (s *store[T]) Resync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.objects {
		s.set(o)
	}
	return nil
}

func (s *store[T]) put(object any) error {
	key, err := cache.MetaNamespaceKeyFunc(object)
	if err != nil {
		return err
	}
	if o, ok := object.(*T); ok {
		s.trim(o)
		s.objects[key] = o
		s.set(o)
	}
	return nil
}
