package xtables

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// verb is what a line of restore input does.
type verb byte

const (
	table   verb = '*' // *nat
	declare verb = ':' // :CHAIN - [0:0]: creates the chain, or empties it
	create  verb = 'N'
	appendR verb = 'A'
	insert  verb = 'I'
	remove  verb = 'D'
	flush   verb = 'F'
	destroy verb = 'X'
	commit  verb = 'C'
)

// op is one line of restore input, read.
type op struct {
	verb  verb
	name  string   // the table or chain; "" where all chains are meant
	index int      // of insert and remove, counted from 1; 0 where there is none
	args  []string // of the rule; the policy of a declared chain
}

var errUnterminated = errors.New("quoted argument does not end")

// split cuts a line into words as iptables-restore does: at blanks, with "…" around words that hold
// blanks, and a backslash before a quote or backslash inside them.
func split(line string) ([]string, error) {
	words := make([]string, 0, 16)
	for {
		line = strings.TrimLeft(line, " \t")
		if line == "" {
			return words, nil
		}
		var word string
		var err error
		if word, line, err = nextWord(line); err != nil {
			return nil, err
		}
		words = append(words, word)
	}
}

func nextWord(line string) (word, rest string, err error) {
	end := strings.IndexAny(line, " \t\"")
	if end < 0 {
		return line, "", nil
	}
	if line[end] != '"' {
		return line[:end], line[end:], nil
	}
	var b strings.Builder
	quoted := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && quoted && i+1 < len(line):
			i++
			b.WriteByte(line[i])
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ' ' || c == '\t'):
			return b.String(), line[i:], nil
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return "", "", errUnterminated
	}
	return b.String(), "", nil
}

// quote is the inverse of split for one word.
func quote(word string) string {
	if word != "" && !strings.ContainsAny(word, " \t\"\\'") {
		return word
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(word) + `"`
}

// eachLine calls f with every line of input that is not blank and not a comment, until f fails.
func eachLine(input []byte, f func(number int, line string) error) error {
	for number := 1; len(input) > 0; number++ {
		line, rest, _ := bytes.Cut(input, []byte("\n"))
		input = rest
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if err := f(number, string(line)); err != nil {
			return err
		}
	}
	return nil
}

// parseOp reads a line of restore input.
func parseOp(line string) (op, error) {
	switch {
	case line == "COMMIT":
		return op{verb: commit}, nil
	case strings.HasPrefix(line, "*"):
		return op{verb: table, name: strings.TrimRight(line[1:], " \t")}, nil
	case strings.HasPrefix(line, ":"):
		words := strings.Fields(line[1:])
		if len(words) < 2 {
			return op{}, fmt.Errorf("policy of %q is missing", line)
		}
		return op{verb: declare, name: words[0], args: words[1:]}, nil
	case strings.HasPrefix(line, "-"):
		return parseCommand(line)
	}
	return op{}, fmt.Errorf("unknown line %q", line)
}

var verbs = map[string]verb{
	"-N": create, "-A": appendR, "-I": insert, "-D": remove, "-F": flush, "-X": destroy,
}

func parseCommand(line string) (op, error) {
	words, err := split(line)
	if err != nil {
		return op{}, err
	}
	v, ok := verbs[words[0]]
	if !ok {
		return op{}, fmt.Errorf("unknown command %q", words[0])
	}
	o := op{verb: v}
	if words = words[1:]; len(words) > 0 {
		o.name, words = words[0], words[1:]
	} else if v != flush && v != destroy {
		return op{}, fmt.Errorf("chain of %q is missing", line)
	}
	if (v == insert || v == remove) && len(words) > 0 {
		if n, err := strconv.Atoi(words[0]); err == nil {
			o.index, words = n, words[1:]
		}
	}
	o.args = words
	return o, nil
}
