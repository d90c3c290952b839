package xtables

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
)

// The places where the two backends name a line, in releases 1.6 to 1.8.
var blamed = []*regexp.Regexp{
	regexp.MustCompile(`(?m)^Error occurred at line: (\d+)\s*$`),
	regexp.MustCompile(`(?m)^(?:\S+: )?line (\d+)(?:: [A-Z_]+)? failed`),
	regexp.MustCompile(`(?m)COMMIT expected at line (\d+)\s*$`),
}

// scarce holds words of messages, of glibc and of musl, about what another try may find mended. The
// exit status does not tell: iptables-nft-restore leaves with 4 whatever the kernel refused.
var scarce = []string{
	"xtables lock", "Can't lock ", "can't open lock file",
	"Resource temporarily unavailable", "Interrupted system call",
	"Cannot allocate memory", "Out of memory", "Memory allocation problem", "No buffer space available",
	"Too many open files", "No file descriptors available",
	"Operation not permitted", "Permission denied",
}

var missingChain = regexp.MustCompile(`(?m)Chain '([^']+)' does not exist\s*$`)

// refusal makes an error of what iptables-restore wrote about input.
func refusal(input []byte, output string, err error) *RestoreError {
	e := &RestoreError{Output: strings.TrimSpace(output), Err: err}
	for _, word := range scarce {
		e.Resource = e.Resource || strings.Contains(output, word)
	}
	if !e.Resource {
		e.Line = culprit(input, output)
	}
	return e
}

// culprit is the line of input that output blames, or 0.
func culprit(input []byte, output string) int {
	line := lineIn(output)
	text, first := lineAt(input, line)
	if text != "COMMIT" {
		return min(line, bytes.Count(input, []byte("\n"))+1)
	}
	// iptables-nft looks for the targets of jumps only when it comes to the COMMIT.
	if m := missingChain.FindStringSubmatch(output); m != nil {
		return jumpTo(m[1], input, first, line)
	}
	return 0
}

func lineIn(output string) int {
	for _, pattern := range blamed {
		if m := pattern.FindStringSubmatch(output); m != nil {
			if n, err := strconv.Atoi(m[1]); err == nil {
				return n
			}
		}
	}
	return 0
}

// lineAt gives the line with a number, and the number of the line that opens its table.
func lineAt(input []byte, number int) (text string, opened int) {
	for n := 1; len(input) > 0 && n <= number; n++ {
		line, rest, _ := bytes.Cut(input, []byte("\n"))
		input = rest
		if bytes.HasPrefix(line, []byte("*")) {
			opened = n
		}
		if n == number {
			return string(line), opened
		}
	}
	return "", opened
}

// jumpTo is the first line from first to last that jumps to chain, or 0.
func jumpTo(chain string, input []byte, first, last int) (number int) {
	_ = eachLine(input, func(n int, line string) error {
		if number == 0 && n >= first && n < last && targetOf(line) == chain {
			number = n
		}
		return nil
	})
	return number
}
