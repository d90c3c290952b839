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

// section is what happens to one table: chains written anew and chains deleted.
type section struct {
	table string
	heads bytes.Buffer // a line a chain: creates it, or empties it
	rules bytes.Buffer
	units []unit
	gone  []string
	seen  map[string]bool // the chains above

	old, new chains // for the use of whoever renders

	writes  int  // rules written
	grown   int  // rules more than before
	recount bool // grown is known, and not to be changed
}

// unit is chains that are written together: where they end in the buffers, and how many they are.
type unit struct{ heads, rules, chains int }

func newSection(table string) *section {
	return &section{table: table, seen: map[string]bool{}}
}

// compare takes what was rendered to s.old and s.new, writes what differs and deletes what is old only. No
// chain of s.old may be wanted under its name by anything but s.new. Both are empty afterwards.
//
// Chains of one call are a unit. Those of later calls must not jump to those of earlier ones.
func (s *section) compare() {
	s.old.sort()
	s.new.sort()
	before := len(s.seen) - len(s.gone)
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
	if written := len(s.seen) - len(s.gone) - before; written > 0 {
		s.units = append(s.units, unit{s.heads.Len(), s.rules.Len(), written})
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
	appendHead(&s.heads, c.name)
	s.rules.Write(s.new.of(c))
	s.writes += c.rules
}

func (s *section) delete(c chain) {
	s.grow(-c.rules)
	s.remove(c.name)
}

// remove deletes a chain that may or may not exist.
func (s *section) remove(name string) {
	if !s.seen[name] {
		s.seen[name] = true
		s.gone = append(s.gone, name)
	}
}

func (s *section) grow(by int) {
	if !s.recount {
		s.grown += by
	}
}

func (s *section) empty() bool { return len(s.seen) == 0 }

// how is the form of restore input.
type how struct {
	// keep empties the chains that should be deleted, and does no more.
	keep bool

	// batch is the number of chains from which on a commit is cut off; 0 is no limit. A chain is
	// committed no later than what jumps to it, and what is deleted goes last.
	batch int
}

// appendTo writes the section as input of iptables-restore.
func (s *section) appendTo(to *bytes.Buffer, h how) {
	for end := len(s.units); ; {
		start, chains := end, 0
		for start > 0 && (h.batch == 0 || chains < h.batch) {
			start--
			chains += s.units[start].chains
		}
		to.WriteString("*" + s.table + "\n")
		from, until := s.boundary(start), s.boundary(end)
		to.Write(s.heads.Bytes()[from.heads:until.heads])
		last := start == 0
		if last {
			for _, name := range s.gone {
				appendHead(to, name)
			}
		}
		to.Write(s.rules.Bytes()[from.rules:until.rules])
		if last && !h.keep {
			for _, name := range s.gone {
				to.WriteString("-X " + name + "\n")
			}
		}
		to.WriteString("COMMIT\n")
		if last {
			return
		}
		end = start
	}
}

// boundary is where the i-th unit begins.
func (s *section) boundary(i int) unit {
	if i == 0 {
		return unit{}
	}
	return s.units[i-1]
}

func appendHead(to *bytes.Buffer, name string) {
	to.WriteString(":" + name + " - [0:0]\n")
}
