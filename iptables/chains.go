package iptables

import (
	"bytes"
	"slices"
	"strings"
)

// chains are rendered chains that share one buffer, to be used again and again.
type chains struct {
	text []byte
	list []chain
}

// chain is a name and a piece of the buffer: its rules as iptables-restore reads them.
type chain struct {
	name     string
	from, to int
	rules    int
}

func (c *chains) reset() { c.text, c.list = c.text[:0], c.list[:0] }

// begin opens a chain: the rules that follow belong to it.
func (c *chains) begin(name string) {
	if len(name) > maxChainName {
		panic("chain name too long: " + name)
	}
	c.list = append(c.list, chain{name: name, from: len(c.text), to: len(c.text)})
}

// rule appends a rule to the open chain. Empty parts are left out.
func (c *chains) rule(parts ...string) {
	open := &c.list[len(c.list)-1]
	c.text = append(c.text, "-A "...)
	c.text = append(c.text, open.name...)
	for _, p := range parts {
		if p != "" {
			c.text = append(c.text, ' ')
			c.text = append(c.text, p...)
		}
	}
	c.text = append(c.text, '\n')
	open.to, open.rules = len(c.text), open.rules+1
}

func (c *chains) of(i chain) []byte { return c.text[i.from:i.to] }

func (c *chains) sort() {
	slices.SortFunc(c.list, func(a, b chain) int { return strings.Compare(a.name, b.name) })
}

// section is what one commit does to one table: chains written anew and chains deleted.
type section struct {
	table string
	heads bytes.Buffer // a line a chain: creates it, or empties it
	rules bytes.Buffer
	gone  []string
	seen  map[string]bool // the chains above

	old, new chains // for the use of whoever renders

	writes  int  // rules written
	grown   int  // rules more than before
	recount bool // grown is known, and not to be changed
}

func newSection(table string) *section {
	return &section{table: table, seen: map[string]bool{}}
}

// compare takes what was rendered to s.old and s.new, writes what differs and deletes what is old only. No
// chain of s.old may be wanted under its name by anything but s.new. Both are empty afterwards.
func (s *section) compare() {
	s.old.sort()
	s.new.sort()
	i := 0
	for _, c := range s.new.list {
		for ; i < len(s.old.list) && s.old.list[i].name < c.name; i++ {
			s.delete(s.old.list[i])
		}
		if i == len(s.old.list) || s.old.list[i].name != c.name {
			s.write(c, 0)
			continue
		}
		was := s.old.list[i]
		if i++; !bytes.Equal(s.old.of(was), s.new.of(c)) {
			s.write(c, was.rules)
		}
	}
	for _, c := range s.old.list[i:] {
		s.delete(c)
	}
	s.old.reset()
	s.new.reset()
}

func (s *section) write(c chain, had int) {
	s.grow(c.rules - had)
	if s.seen[c.name] {
		return
	}
	s.seen[c.name] = true
	s.head(c.name)
	s.rules.Write(s.new.of(c))
	s.writes += c.rules
}

func (s *section) delete(c chain) {
	s.grow(-c.rules)
	s.remove(c.name)
}

// remove deletes a chain that may or may not exist.
func (s *section) remove(name string) {
	if s.seen[name] {
		return
	}
	s.seen[name] = true
	s.head(name)
	s.gone = append(s.gone, name)
}

func (s *section) grow(by int) {
	if !s.recount {
		s.grown += by
	}
}

func (s *section) head(name string) {
	s.heads.WriteByte(':')
	s.heads.WriteString(name)
	s.heads.WriteString(" - [0:0]\n")
}

func (s *section) empty() bool { return s.heads.Len() == 0 }

// appendTo writes the section as input of iptables-restore. What is to be deleted is only emptied
// if keep is set.
func (s *section) appendTo(to *bytes.Buffer, keep bool) {
	to.WriteByte('*')
	to.WriteString(s.table)
	to.WriteByte('\n')
	to.Write(s.heads.Bytes())
	to.Write(s.rules.Bytes())
	if !keep {
		for _, name := range s.gone {
			to.WriteString("-X ")
			to.WriteString(name)
			to.WriteByte('\n')
		}
	}
	to.WriteString("COMMIT\n")
}
