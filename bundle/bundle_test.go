package bundle

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func piece(name string, write func(context.Context, io.Writer) error) Piece {
	return Piece{name, write}
}

// contents is a file of an archive.
func contents(t *testing.T, archive []byte, name string) string {
	t.Helper()
	var text []byte
	if err := Find(bytes.NewReader(archive), name, func(r io.Reader) (err error) { text, err = io.ReadAll(r); return err }); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestWhatCannotBeHadIsNamedAndTheRestPacked(t *testing.T) {
	pieces := []Piece{
		Text("version.txt", "v1"),
		piece("half.txt", func(_ context.Context, w io.Writer) error {
			_, _ = io.WriteString(w, "half of ")
			return errors.New("connection lost")
		}),
		piece("long.txt", func(_ context.Context, w io.Writer) error {
			for {
				if _, err := io.WriteString(w, "0123456789"); err != nil {
					return err
				}
			}
		}),
		piece("late.txt", func(ctx context.Context, _ io.Writer) error { <-ctx.Done(); return ctx.Err() }),
		Text("last.txt", "there"),
	}
	var archive bytes.Buffer
	missing, err := Write(t.Context(), &archive, "sluice-n1", pieces, Limits{Size: 1234, Time: 10 * time.Millisecond})
	if err != nil || len(missing) != 3 {
		t.Fatalf("%v, missing %v", err, missing)
	}
	for name, want := range map[string]string{
		"version.txt": "v1", "half.txt": "half of ", "late.txt": "", "last.txt": "there",
		Errors: "half.txt: connection lost\nlong.txt: cut off after 1234 bytes\nlate.txt: context deadline exceeded\n",
	} {
		if got := contents(t, archive.Bytes(), name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if n := len(contents(t, archive.Bytes(), "long.txt")); n != 1234 {
		t.Errorf("long.txt has %d bytes", n)
	}
}

func TestTarReadsIt(t *testing.T) {
	var archive bytes.Buffer
	if _, err := Write(t.Context(), &archive, "sluice-n1", []Piece{Text("a/b.txt", "text")}, Usual); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tar", "--extract", "--gzip", "--to-stdout", "sluice-n1/a/b.txt")
	cmd.Stdin = &archive
	if out, err := cmd.Output(); err != nil || string(out) != "text" {
		t.Errorf("%v: %q", err, out)
	}
}

func TestWhatIsNoBundleIsToldApart(t *testing.T) {
	var archive bytes.Buffer
	if _, err := Write(t.Context(), &archive, "x", []Piece{Text("a.txt", "text")}, Usual); err != nil {
		t.Fatal(err)
	}
	whole := archive.Bytes()
	for name, test := range map[string]struct {
		archive []byte
		want    string
	}{
		"other file": {[]byte("PK\x03\x04"), "this is no bundle"},
		"empty":      {nil, "this is no bundle"},
		"cut off":    {whole[:len(whole)/2], "read the bundle"},
		"no file":    {whole, "the bundle has no b.txt"},
	} {
		err := Find(bytes.NewReader(test.archive), "b.txt", func(io.Reader) error { return nil })
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
}
