package nft

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/nfwatch"
)

// Watch calls doubt, from the calling goroutine, whenever somebody else changed the table, with a reason that names the
// culprit if the kernel tells. Changes of others to their own tables raise none. It returns when ctx ends, with nil,
// or when the kernel cannot be watched. It may run beside the other methods.
//
// Changes from before the call are not noticed. Its sockets belong to the network namespace of the calling thread.
func (r *Runner) Watch(ctx context.Context, doubt func(reason string)) error {
	w, err := nfwatch.New(nfwatch.Config{
		Touched: r.touched,
		Ours:    r.children.Made,
		// Reading the table, to see whether somebody touched it, costs as much as the repair, which reads it as well.
		Compare: func(context.Context) string { return "what it changed is not known" },
	})
	if err != nil {
		return err
	}
	return w.Run(ctx, doubt)
}

// touched says what a message tells to have happened to the table, or "".
func (r *Runner) touched(m nfwatch.Message) string {
	if m.Family != nfFamily(r.family) {
		return ""
	}
	// The table's name is the first attribute of all messages: NFTA_CHAIN_TABLE, NFTA_RULE_TABLE and so on are 1.
	of := func(what, name string) string {
		if m.Text(unix.NFTA_CHAIN_TABLE) != r.table {
			return ""
		}
		return fmt.Sprintf("%s %s%s of table %s", verbs[m.Kind], what, name, r.table)
	}
	switch m.Kind {
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE:
		if m.Text(unix.NFTA_TABLE_NAME) == r.table {
			return verbs[m.Kind] + " table " + r.table
		}
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		return of("chain ", m.Text(unix.NFTA_CHAIN_NAME))
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		return of("a rule in chain ", m.Text(unix.NFTA_RULE_CHAIN))
	case unix.NFT_MSG_NEWSET, unix.NFT_MSG_DELSET:
		return of("set ", m.Text(unix.NFTA_SET_NAME))
	case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
		return of("an element in set ", m.Text(unix.NFTA_SET_ELEM_LIST_SET))
	}
	return ""
}

var verbs = map[uint16]string{
	unix.NFT_MSG_NEWTABLE: "wrote", unix.NFT_MSG_DELTABLE: "deleted",
	unix.NFT_MSG_NEWCHAIN: "wrote", unix.NFT_MSG_DELCHAIN: "deleted",
	unix.NFT_MSG_NEWRULE: "wrote", unix.NFT_MSG_DELRULE: "deleted",
	unix.NFT_MSG_NEWSET: "wrote", unix.NFT_MSG_DELSET: "deleted",
	unix.NFT_MSG_NEWSETELEM: "wrote", unix.NFT_MSG_DELSETELEM: "deleted",
}
