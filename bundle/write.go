package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Errors is the file that says what could not be had.
const Errors = "errors.txt"

// Limits bound each piece, so that a node in trouble does not keep support waiting, or fills its disk.
type Limits struct {
	Size int64 // bytes, before they are compressed
	Time time.Duration
}

// Usual are limits that a large cluster keeps.
var Usual = Limits{Size: 512 << 20, Time: 30 * time.Second}

// Piece is a file of the archive.
type Piece struct {
	Name string

	// Write writes it. What it has written before an error is packed.
	Write func(ctx context.Context, w io.Writer) error
}

// Text is a piece that is at hand.
func Text(name, text string) Piece {
	return Piece{name, func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	}}
}

// Write packs pieces, in a folder, as tar.gz. It tells what could not be had, and fails only if the archive cannot be written.
func Write(ctx context.Context, w io.Writer, folder string, pieces []Piece, limits Limits) (missing []error, err error) {
	zip := gzip.NewWriter(w)
	archive := tar.NewWriter(zip)
	var complaints strings.Builder
	for _, p := range pieces {
		s := newSpool(limits.Size)
		if err := p.spool(ctx, s, limits.Time); err != nil {
			missing = append(missing, fmt.Errorf("%s: %w", p.Name, err))
			fmt.Fprintf(&complaints, "%s: %v\n", p.Name, err)
		}
		if err := s.pack(archive, folder+"/"+p.Name); err != nil {
			return missing, err
		}
	}
	if len(missing) > 0 {
		s := newSpool(limits.Size)
		_, _ = io.WriteString(s, complaints.String()) // into memory
		if err := s.pack(archive, folder+"/"+Errors); err != nil {
			return missing, err
		}
	}
	return missing, errors.Join(archive.Close(), zip.Close())
}

// spool has the piece written within its time.
func (p Piece) spool(ctx context.Context, s *spool, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return p.Write(ctx, s)
}

// spool holds a file of which the size must be known before it is packed, compressed: there may be no disk to write to, and little
// memory.
type spool struct {
	zipped      bytes.Buffer
	zip         *gzip.Writer
	size, limit int64
}

func newSpool(limit int64) *spool {
	s := &spool{limit: limit}
	s.zip = gzip.NewWriter(&s.zipped)
	return s
}

// Write implements io.Writer.
func (s *spool) Write(b []byte) (int, error) {
	if room := s.limit - s.size; int64(len(b)) > room {
		n, err := s.zip.Write(b[:room])
		s.size += int64(n)
		return n, errors.Join(err, fmt.Errorf("cut off after %d bytes", s.limit))
	}
	n, err := s.zip.Write(b)
	s.size += int64(n)
	return n, err
}

func (s *spool) pack(archive *tar.Writer, name string) error {
	if err := s.zip.Close(); err != nil {
		return err
	}
	plain, err := gzip.NewReader(&s.zipped)
	if err != nil {
		return err
	}
	if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: s.size, ModTime: time.Now(), Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err = io.Copy(archive, plain)
	return err
}
