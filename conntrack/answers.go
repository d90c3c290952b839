package conntrack

import (
	"maps"
	"time"
)

const (
	// answerTime is how long an answer may be on its way that still belongs to a deleted flow.
	answerTime = time.Second

	// answerMemory is how long such answers are told from flows that somebody begins: longer than it
	// takes until a pass that failed is made up for.
	answerMemory = time.Minute

	// maxAnswers bounds the memory that it takes, about 100 bytes each.
	maxAnswers = 1 << 16
)

// answers are the directions of untranslated flows that were deleted, with the time of that. An answer
// that was on its way then makes a flow of its own, in the opposite direction. Such a flow alone does not
// show it: the node itself may send from the port of a NodePort.
type answers map[Tuple]time.Time

// forget drops what was long ago.
func (a answers) forget(now time.Time) {
	maps.DeleteFunc(a, func(_ Tuple, since time.Time) bool { return now.Sub(since) > answerMemory })
}

// expect adds flows that are to be deleted.
func (a *answers) expect(deleted []Flow, now time.Time) {
	if *a == nil && len(deleted) > 0 {
		*a = answers{}
	}
	for _, f := range deleted {
		if len(*a) == maxAnswers {
			return
		}
		(*a)[f.Original] = now
	}
}

// has tells whether an answer may have made a flow.
func (a answers) has(f Flow) bool {
	_, is := a[Tuple{Src: f.Original.Dst, Dst: f.Original.Src}]
	return is
}
