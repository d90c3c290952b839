package bundle

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
)

// mostRead is how much of a file is read: an archive comes from elsewhere, and may unpack to anything.
const mostRead = 1 << 30

// Find gives read a file of an archive by its name without the folder.
func Find(archive io.Reader, name string, read func(io.Reader) error) error {
	zip, err := gzip.NewReader(archive)
	if err != nil {
		return fmt.Errorf("this is no bundle: %w", err)
	}
	for files := tar.NewReader(zip); ; {
		header, err := files.Next()
		switch {
		case errors.Is(err, io.EOF):
			return fmt.Errorf("the bundle has no %s", name)
		case err != nil:
			return fmt.Errorf("read the bundle: %w", err)
		case path.Base(header.Name) == name && header.Typeflag == tar.TypeReg:
			return read(io.LimitReader(files, mostRead))
		}
	}
}
