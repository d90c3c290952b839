package xtables

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// SharedChain is a chain that other programs jump to as well. Whoever finds that it is missing makes it.
const SharedChain = "KUBE-MARK-MASQ"

// contents are the parts of a table that matter to whoever owns the chains of one prefix.
type contents struct {
	chains map[string]int // rules by name of our chain
	jumps  map[jump]int   // rules of other chains that lead to ours
	shared map[string]bool

	// overtaken are the other chains in which a jump of kube-proxy's stands before one to ours.
	overtaken map[string]bool
	kube      map[string]bool // those with a jump of kube-proxy's so far
}

// jump is a lead from a chain that is not ours to one that is.
type jump struct{ chain, target string }

func newContents() contents {
	return contents{chains: map[string]int{}, jumps: map[jump]int{}, shared: map[string]bool{}, overtaken: map[string]bool{}, kube: map[string]bool{}}
}

// incompatible is how iptables-nft-save says that it cannot show a table. It exits with 0.
const incompatible = "is incompatible, use 'nft' tool"

var errIncompatible = errors.New("the table holds what iptables cannot express")

// maxLine is more than any rule can need: its longest argument is a comment of 256 bytes.
const maxLine = 1 << 20

// parseSave reads what iptables-save prints about one table.
func parseSave(r io.Reader, prefix string) (contents, error) {
	found := newContents()
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "#"):
			if strings.Contains(line, incompatible) {
				return contents{}, fmt.Errorf("%w: %s", errIncompatible, line)
			}
		case strings.HasPrefix(line, ":"):
			name, _, _ := strings.Cut(line[1:], " ")
			found.addChain(name, prefix)
		case strings.HasPrefix(line, "-A "):
			found.addRule(line[3:], prefix)
		}
	}
	return found, lines.Err()
}

// addChain takes note of a chain that is ours or shared.
func (c contents) addChain(name, prefix string) {
	if strings.HasPrefix(name, prefix) {
		c.chains[name] += 0
	}
	if name == SharedChain {
		c.shared[name] = true
	}
}

// addRule counts a rule, given as the chain and its arguments.
func (c contents) addRule(rule, prefix string) {
	chain, args, _ := strings.Cut(rule, " ")
	if !c.addOwn(chain, prefix) {
		c.addForeign(chain, targetOf(args), prefix)
	}
}

// addOwn counts a rule if its chain is ours.
func (c contents) addOwn(chain, prefix string) bool {
	if !strings.HasPrefix(chain, prefix) {
		return false
	}
	c.chains[chain]++
	return true
}

// addForeign takes note of where a rule of another chain leads.
func (c contents) addForeign(chain, target, prefix string) {
	switch {
	case strings.HasPrefix(target, prefix):
		c.jumps[jump{chain, target}]++
		if c.kube[chain] {
			c.overtaken[chain] = true
		}
	case slices.Contains(kubeProxy, target):
		c.kube[chain] = true
	}
}

// targetOf is the target of a rule's arguments, or "".
func targetOf(args string) string {
	if !strings.Contains(args, "-j ") && !strings.Contains(args, "-g ") {
		return ""
	}
	words, err := split(args)
	if err != nil {
		return ""
	}
	for i, w := range words[:max(len(words)-1, 0)] {
		if w == "-j" || w == "-g" || w == "--jump" || w == "--goto" {
			return words[i+1]
		}
	}
	return ""
}
