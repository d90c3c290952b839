package nft

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/nfwatch"
	"github.com/sluice-proxy/sluice/proxy"
)

// maxReads is how often the table is read because somebody committed meanwhile.
const maxReads = 10

// Read implements Interface. It asks the kernel, not nft, which would need many times the memory.
func (r *Runner) Read(ctx context.Context) (*State, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("read table %s: %w", r.table, err)
	}
	defer func() { _ = c.Close() }()
	reader := &reader{Conn: c, family: r.family, name: r.table, schema: r.schema, forms: r.forms}
	var before *State
	for range maxReads {
		state, err := reader.read(ctx)
		if err != nil {
			return nil, fmt.Errorf("read table %s: %w", r.table, err)
		}
		// Others may commit to their own tables faster than ours can be read. What has been read twice in a row is what there is.
		if !reader.disturbed || before != nil && reflect.DeepEqual(state, before) {
			return state, nil
		}
		before = state
	}
	return nil, fmt.Errorf("read table %s: it changes all the time", r.table)
}

// Glance is Read for whoever can bear that of what others commit meanwhile only a part is there. Where commits come so often
// that Read never sees the same twice, this one ends.
func (r *Runner) Glance(ctx context.Context) (*State, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("read table %s: %w", r.table, err)
	}
	defer func() { _ = c.Close() }()
	state, err := (&reader{Conn: c, family: r.family, name: r.table, schema: r.schema, forms: r.forms, again: 1}).read(ctx)
	if err != nil {
		return nil, fmt.Errorf("read table %s: %w", r.table, err)
	}
	return state, nil
}

// reader reads a table in parts.
type reader struct {
	*netlink.Conn
	family proxy.Family
	name   string
	schema *Schema
	forms  *Forms // nil: rules are what their comments say
	again  int    // how often a list is read anew that changed while it was read
	frame  bool   // without elements

	disturbed bool // somebody committed while the table was read
}

func (r *reader) read(ctx context.Context) (*State, error) {
	r.disturbed = false
	before, err := nfwatch.CurrentGeneration()
	if err != nil {
		return nil, err
	}
	state, err := r.table()
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, part := range []func(*State) error{r.chains, r.sets, r.rules} {
		if err := part(state); err != nil {
			return nil, err
		}
	}
	for _, s := range r.schema.Sets {
		if s.Packets || r.frame || state.isUnlike(nameOf(s.Name)) {
			continue
		}
		if err := errors.Join(ctx.Err(), r.elements(state, s)); err != nil {
			return nil, err
		}
	}
	state.Fits = len(state.Unlike) == 0
	after, err := nfwatch.CurrentGeneration()
	r.disturbed = r.disturbed || after != before
	return state, err
}

func (r *reader) table() (*State, error) {
	state := &State{Chains: map[string][]string{}, Elements: map[string][]Element{}}
	tables, err := r.ask(unix.NFT_MSG_GETTABLE, 0, text(unix.NFTA_TABLE_NAME, r.name))
	for _, m := range tables {
		state.Asleep = m.Number(unix.NFTA_TABLE_FLAGS)&tableDormant != 0
	}
	return state, err
}

// hookNumbers are those of the kernel.
var hookNumbers = map[string]uint32{"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}

func (r *reader) chains(to *State) error {
	chains, err := r.ask(unix.NFT_MSG_GETCHAIN, netlink.Dump)
	if err != nil {
		return err
	}
	fit := map[string]bool{}
	for _, m := range chains {
		if m.Text(unix.NFTA_CHAIN_TABLE) != r.name {
			continue
		}
		name := m.Text(unix.NFTA_CHAIN_NAME)
		to.Chains[name] = nil
		hook := m.Attr(unix.NFTA_CHAIN_HOOK)
		if hook == nil {
			continue
		}
		for _, want := range r.schema.Chains {
			fit[name] = fit[name] || want.Name == name && m.Text(unix.NFTA_CHAIN_TYPE) == string(want.Type) &&
				number(nfwatch.Nested(hook, unix.NFTA_HOOK_HOOKNUM)) == hookNumbers[string(want.Hook)] &&
				int32(number(nfwatch.Nested(hook, unix.NFTA_HOOK_PRIORITY))) == int32(want.Priority) &&
				m.Number(unix.NFTA_CHAIN_POLICY) == nfAccept
		}
		if !fit[name] {
			to.unlike(r.schema.isBase(name), "chain "+name, "it is called at another place, or what passes it is dropped")
		}
	}
	for _, want := range r.schema.Chains {
		if _, found := fit[want.Name]; found {
			continue
		}
		_, there := to.Chains[want.Name]
		to.lacks(there, "chain "+want.Name, "no packet is led to it")
	}
	return nil
}

// unlike notes an object that is there and, if it is known, should be otherwise.
func (s *State) unlike(known bool, object, detail string) {
	if !known {
		s.Unlike = append(s.Unlike, proxy.Difference{Kind: proxy.Foreign, Object: object})
		return
	}
	s.Unlike = append(s.Unlike, proxy.Difference{Kind: proxy.Altered, Object: object, Detail: detail})
}

// lacks notes an object that should be there and, if something of that name is, should be otherwise.
func (s *State) lacks(there bool, object, detail string) {
	if there {
		s.unlike(true, object, detail)
		return
	}
	s.Unlike = append(s.Unlike, proxy.Difference{Kind: proxy.Missing, Object: object})
}

// Of the kernel's linux/netfilter/nf_tables.h.
const (
	tableDormant = 0x1

	setInterval = 0x4
	setTimeout  = 0x10
	setEval     = 0x20

	verdictType = 0xffffff00

	nfDrop   = 0 // the verdicts NF_DROP and NF_ACCEPT
	nfAccept = 1
)

func (r *reader) sets(to *State) error {
	sets, err := r.ask(unix.NFT_MSG_GETSET, netlink.Dump, text(unix.NFTA_SET_TABLE, r.name))
	if err != nil {
		return err
	}
	found := map[string]bool{}
	for _, m := range sets {
		name := m.Text(unix.NFTA_SET_NAME)
		if strings.HasPrefix(name, "__") {
			continue // part of a rule
		}
		found[name] = true
		if s := r.schema.Set(name); s == nil || !s.isDeclaredBy(m, r.family) {
			to.unlike(s != nil, nameOf(name), "it is declared in another way")
		}
	}
	for _, want := range r.schema.Sets {
		if !found[want.Name] {
			to.lacks(false, nameOf(want.Name), "")
		}
	}
	return nil
}

// nameOf is how State names a set.
func nameOf(set string) string { return "set " + set }

func (s *Set) isDeclaredBy(m nfwatch.Message, f proxy.Family) bool {
	flags := uint32(0)
	if s.Interval {
		flags |= setInterval
	}
	if s.Packets {
		flags |= setTimeout | setEval
	}
	desc := m.Attr(unix.NFTA_SET_DESC)
	return m.Number(unix.NFTA_SET_FLAGS)&(setInterval|setTimeout|setEval) == flags &&
		m.Number(unix.NFTA_SET_KEY_LEN) == uint32(lengthOf(s.Key, f)) &&
		(m.Number(unix.NFTA_SET_DATA_TYPE) == verdictType) == s.Verdict &&
		(s.Verdict || m.Number(unix.NFTA_SET_DATA_LEN) == uint32(lengthOf(s.Value, f))) &&
		uint64(number(nfwatch.Nested(desc, unix.NFTA_SET_DESC_SIZE))) == s.Size
}

// altered follows the comment of a rule that is not what the comment says.
const altered = " altered"

func (r *reader) rules(to *State) error {
	rules, err := r.ask(unix.NFT_MSG_GETRULE, netlink.Dump, text(unix.NFTA_RULE_TABLE, r.name))
	if err != nil {
		return err
	}
	for _, m := range rules {
		if m.Text(unix.NFTA_RULE_TABLE) == r.name {
			chain := m.Text(unix.NFTA_RULE_CHAIN)
			digest := comment(m.Attr(unix.NFTA_RULE_USERDATA))
			if r.forms != nil && !r.forms.agree(digest, formOf(m.Attr(unix.NFTA_RULE_EXPRESSIONS))) {
				digest += altered
			}
			to.Chains[chain] = append(to.Chains[chain], digest)
		}
	}
	return nil
}

func (r *reader) elements(to *State, s *Set) error {
	lists, err := r.ask(unix.NFT_MSG_GETSETELEM, netlink.Dump,
		text(unix.NFTA_SET_ELEM_LIST_TABLE, r.name), text(unix.NFTA_SET_ELEM_LIST_SET, s.Name))
	if err != nil {
		return err
	}
	var all []Element
	for _, m := range lists {
		elements, err := netlink.UnmarshalAttributes(m.Attr(unix.NFTA_SET_ELEM_LIST_ELEMENTS))
		if err != nil {
			return fmt.Errorf("elements of %s: %w", s.Name, err)
		}
		for _, raw := range elements {
			e, err := s.element(raw.Data, r.family)
			if err != nil {
				to.unlike(true, nameOf(s.Name), fmt.Sprintf("it has an element of another form: %v", err))
				return nil
			}
			all = append(all, e)
		}
	}
	to.Elements[s.Name] = all
	return nil
}

const setElemKeyEnd = 10 // NFTA_SET_ELEM_KEY_END

func (s *Set) element(data []byte, f proxy.Family) (Element, error) {
	attrs, err := netlink.UnmarshalAttributes(data)
	if err != nil {
		return Element{}, err
	}
	e := Element{Comment: comment(nfwatch.AttrOf(attrs, unix.NFTA_SET_ELEM_USERDATA))}
	key := nfwatch.Nested(nfwatch.AttrOf(attrs, unix.NFTA_SET_ELEM_KEY), unix.NFTA_DATA_VALUE)
	end := nfwatch.Nested(nfwatch.AttrOf(attrs, setElemKeyEnd), unix.NFTA_DATA_VALUE)
	if e.Key, err = format(s.Key, f, key, end); err != nil {
		return e, err
	}
	value := nfwatch.AttrOf(attrs, unix.NFTA_SET_ELEM_DATA)
	switch {
	case s.Verdict:
		e.Value = verdict(nfwatch.Nested(value, unix.NFTA_DATA_VERDICT))
	case len(s.Value) > 0:
		e.Value, err = format(s.Value, f, nfwatch.Nested(value, unix.NFTA_DATA_VALUE), nil)
	}
	return e, err
}

func verdict(data []byte) string {
	attrs, err := netlink.UnmarshalAttributes(data)
	if err != nil {
		return ""
	}
	chain := strings.TrimRight(string(nfwatch.AttrOf(attrs, unix.NFTA_VERDICT_CHAIN)), "\x00")
	switch int32(number(nfwatch.AttrOf(attrs, unix.NFTA_VERDICT_CODE))) {
	case nfDrop:
		return "drop"
	case unix.NFT_JUMP:
		return "jump " + chain
	case unix.NFT_GOTO:
		return "goto " + chain
	}
	return "?"
}

// sizeOf is the length of a field in bytes.
func (field Field) sizeOf(f proxy.Family) int {
	switch field {
	case Addr:
		return f.Bits() / 8
	case Protocol:
		return 1
	case Port:
		return 2
	}
	return 4
}

// padded is a length as it is in a concatenation.
func padded(n int) int { return (n + 3) &^ 3 }

func lengthOf(fields []Field, f proxy.Family) int {
	if len(fields) == 1 {
		return fields[0].sizeOf(f)
	}
	n := 0
	for _, field := range fields {
		n += padded(field.sizeOf(f))
	}
	return n
}

// format writes the fields of a key or value in the words of nft. If there is an end, the last field is the
// prefix that reaches from the one to the other. An error says that we have never written such an element.
func format(fields []Field, f proxy.Family, data, end []byte) (string, error) {
	if len(data) != lengthOf(fields, f) || end != nil && len(end) != len(data) {
		return "", fmt.Errorf("%d bytes, want %d", len(data), lengthOf(fields, f))
	}
	text := make([]byte, 0, 64)
	at := 0
	for i, field := range fields {
		if i > 0 {
			text = append(text, " . "...)
		}
		n := field.sizeOf(f)
		raw := data[at : at+n]
		last := raw
		if end != nil {
			last = end[at : at+n]
		}
		if field != Addr && !bytes.Equal(raw, last) {
			return "", errors.New("a range")
		}
		switch field {
		case Addr:
			p, err := prefix(raw, last)
			if err != nil || i < len(fields)-1 && !p.IsSingleIP() {
				return "", cmp.Or(err, errors.New("a range"))
			}
			text = AppendPrefixLength(p.Addr().AppendTo(text), p)
		case Protocol:
			if p := proxy.Protocol(raw[0]); p != proxy.TCP && p != proxy.UDP && p != proxy.SCTP {
				return "", fmt.Errorf("%v", p)
			}
			text = append(text, proxy.Protocol(raw[0]).String()...)
		case Port:
			text = fmt.Append(text, binary.BigEndian.Uint16(raw))
		case Class:
			text = AppendClass(text, binary.NativeEndian.Uint32(raw))
		case Mark:
			text = AppendMark(text, binary.NativeEndian.Uint32(raw))
		}
		at += padded(n)
	}
	return string(text), nil
}

// AppendClass writes a classid as nft does.
func AppendClass(to []byte, class uint32) []byte {
	return fmt.Appendf(to, "%x:%x", class>>16, class&0xffff)
}

// AppendMark writes a mark as nft does.
func AppendMark(to []byte, mark uint32) []byte { return fmt.Appendf(to, "0x%08x", mark) }

// AppendPrefixLength writes the length of a prefix as nft does, nothing for a single address.
func AppendPrefixLength(to []byte, p netip.Prefix) []byte {
	if p.IsSingleIP() {
		return to
	}
	return fmt.Appendf(to, "/%d", p.Bits())
}

// prefix reaches from an address to another.
func prefix(first, last []byte) (netip.Prefix, error) {
	addr, _ := netip.AddrFromSlice(first)
	p := netip.PrefixFrom(addr, commonBits(first, last))
	for i := range first {
		bits := byte(0xff) >> max(0, min(8, p.Bits()-8*i)) // of the host
		if first[i]&bits != 0 || last[i]&bits != bits {
			return p, errors.New("a range that is no prefix")
		}
	}
	return p, nil
}

func commonBits(a, b []byte) int {
	for i := range a {
		for bit := range 8 {
			if (a[i]^b[i])>>(7-bit)&1 != 0 {
				return 8*i + bit
			}
		}
	}
	return 8 * len(a)
}

// comment is the text in what libnftnl calls user data: a list of type, length, value.
func comment(data []byte) string {
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		value := data[2 : 2+int(data[1])]
		if data[0] == 0 {
			return strings.TrimRight(string(value), "\x00")
		}
		data = data[2+len(value):]
	}
	return ""
}

// ask sends a request and parses the answers.
func (r *reader) ask(kind uint16, flags netlink.HeaderFlags, attrs ...netlink.Attribute) ([]nfwatch.Message, error) {
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return nil, err
	}
	request := netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: netlink.Request | flags},
		Data:   append(nfgenmsg(r.family), data...),
	}
	for again := r.again; ; again-- {
		messages, interrupted, err := r.once(request)
		if err != nil || !interrupted || again <= 0 {
			r.disturbed = r.disturbed || interrupted
			return messages, err
		}
	}
}

// once asks, and tells whether what was listed changed meanwhile.
func (r *reader) once(request netlink.Message) (messages []nfwatch.Message, interrupted bool, err error) {
	answers, err := r.Execute(request)
	if err != nil {
		return nil, false, err
	}
	for _, answer := range answers {
		interrupted = interrupted || answer.Header.Flags&netlink.DumpInterrupted != 0
		if m, ok := nfwatch.ParseMessage(answer); ok {
			messages = append(messages, m)
		}
	}
	return messages, interrupted, nil
}

func text(kind uint16, value string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(value), 0)}
}
