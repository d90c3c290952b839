package nft

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/proxy"
)

// Field is the type of a part of a key or value.
type Field uint8

// The types of fields.
const (
	Addr     Field = iota // an address of the table's family
	Protocol              // inet_proto
	Port                  // inet_service
	Class                 // classid: 32 bits, written as two hexadecimal numbers of 16
	Mark                  // the mark of a packet: 32 bits
)

// Set declares a set or a map. The zero Value and Verdict make it a set.
type Set struct {
	Name    string
	Key     []Field
	Value   []Field
	Verdict bool // the value is a verdict

	// Interval lets the last field of the key be a prefix.
	Interval bool

	// Packets says that packets add elements, which end by themselves; Size is how many there may be. Such
	// elements are never read or written.
	Packets bool
	Size    uint64
}

// IsMap tells whether elements have values.
func (s *Set) IsMap() bool { return s.Verdict || len(s.Value) > 0 }

// Family is the knftables family of an IP family.
func Family(f proxy.Family) knftables.Family {
	if f == proxy.IPv6 {
		return knftables.IPv6Family
	}
	return knftables.IPv4Family
}

// typeOf is the declaration of fields as nft reads it.
//
// Maps are declared by type. With typeof, nft 1.0.6 creates a map with th dport in its key and then refuses
// every later rule that names it; with tcp dport it adds a match on the protocol.
func typeOf(f proxy.Family, fields []Field) string {
	names := make([]string, len(fields))
	for i, field := range fields {
		switch field {
		case Addr:
			names[i] = "ipv4_addr"
			if f == proxy.IPv6 {
				names[i] = "ipv6_addr"
			}
		case Protocol:
			names[i] = "inet_proto"
		case Port:
			names[i] = "inet_service"
		case Class:
			names[i] = "classid"
		case Mark:
			names[i] = "mark"
		}
	}
	return strings.Join(names, " . ")
}

// Object is what creates the set.
func (s *Set) Object(f proxy.Family) knftables.Object {
	var flags []knftables.SetFlag
	if s.Interval {
		flags = append(flags, knftables.IntervalFlag)
	}
	if s.Packets {
		flags = append(flags, knftables.DynamicFlag, knftables.TimeoutFlag)
	}
	var size *uint64
	if s.Size > 0 {
		size = &s.Size
	}
	key := typeOf(f, s.Key)
	if !s.IsMap() {
		return &knftables.Set{Name: s.Name, Type: key, Flags: flags, Size: size}
	}
	value := "verdict"
	if !s.Verdict {
		value = typeOf(f, s.Value)
	}
	return &knftables.Map{Name: s.Name, Type: key + " : " + value, Flags: flags, Size: size}
}

// BaseChain is where packets enter the table.
type BaseChain struct {
	Name     string
	Type     knftables.BaseChainType
	Hook     knftables.BaseChainHook
	Priority int
}

// Object is what creates the chain.
func (c BaseChain) Object() *knftables.Chain {
	return &knftables.Chain{
		Name:     c.Name,
		Type:     &c.Type,
		Hook:     &c.Hook,
		Priority: knftables.PtrTo(knftables.BaseChainPriority(strconv.Itoa(c.Priority))),
	}
}

// Schema is what a table of ours has whatever it serves, but for the rules of its chains.
type Schema struct {
	Table  string // its name
	Sets   []*Set
	Chains []BaseChain
}

// Set is the set of that name, nil if there is none.
func (s *Schema) Set(name string) *Set {
	if i := slices.IndexFunc(s.Sets, func(x *Set) bool { return x.Name == name }); i >= 0 {
		return s.Sets[i]
	}
	return nil
}

// isBase tells whether packets enter the table at a chain of that name.
func (s *Schema) isBase(chain string) bool {
	return slices.ContainsFunc(s.Chains, func(c BaseChain) bool { return c.Name == chain })
}

// Declare adds the table with its sets and base chains, without rules, to a transaction.
func (s *Schema) Declare(tx *knftables.Transaction, f proxy.Family, flags ...knftables.TableFlag) {
	tx.Add(&knftables.Table{Flags: flags})
	for _, set := range s.Sets {
		tx.Add(set.Object(f))
	}
	for _, c := range s.Chains {
		tx.Add(c.Object())
	}
}

// Vanish lets a transaction begin with a table that is not there.
func Vanish(tx *knftables.Transaction) {
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
}

// timeout limits how long one run of nft may take. It is far beyond what the largest transaction takes.
const timeout = 5 * time.Minute
