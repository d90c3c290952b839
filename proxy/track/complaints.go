package track

import (
	"fmt"
	"strings"

	"k8s.io/klog/v2"
)

// maxComplaints is how many of an object's faults are put into words.
const maxComplaints = 5

// complaints says what is wrong with one object.
type complaints struct {
	logger klog.Logger
	words  []string
	more   int
}

func (c *complaints) add(format string, args ...any) {
	if len(c.words) == maxComplaints {
		c.more++
		return
	}
	c.words = append(c.words, fmt.Sprintf(format, args...))
}

// log writes one line, unless it was written already, and returns it.
func (c *complaints) log(kind string, obj klog.KMetadata, logged string) string {
	if len(c.words) == 0 {
		return ""
	}
	text := strings.Join(c.words, "; ")
	if c.more > 0 {
		text += fmt.Sprintf("; and %d more", c.more)
	}
	if text != logged {
		c.logger.Info("Left out what cannot be used", "kind", kind, "object", klog.KObj(obj), "reason", text)
	}
	return text
}
