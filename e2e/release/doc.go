// Package release tests what is released: that the same source makes the same bytes wherever it is built, that the image's build gets all it
// needs, and that each part of the binary is named, with a licence that it may have.
package release
