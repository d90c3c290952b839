package sysctl

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
)

// File is a setting that is kept open. It stays that of the network namespace in which it was opened, whatever thread reads it.
type File struct{ file *os.File }

// Open opens a setting to be read.
func (t Tree) Open(setting string) (File, error) {
	f, err := os.Open(t.path(setting))
	return File{f}, err
}

// Get is the present value.
func (f File) Get() (int, error) {
	const longest = 32 // of a number
	text := make([]byte, longest)
	n, err := f.file.ReadAt(text, 0)
	if err != nil && err != io.EOF { //nolint:errorlint // it comes as it is
		return 0, err
	}
	value, err := strconv.Atoi(string(bytes.TrimSpace(text[:n])))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", f.file.Name(), err)
	}
	return value, nil
}

// Close closes it.
func (f File) Close() { _ = f.file.Close() }
