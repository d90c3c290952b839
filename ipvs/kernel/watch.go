package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	vnetlink "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// settle is how long changes of rules and routes are gathered before they are looked at.
const settle = 100 * time.Millisecond

// RouterWatch notices that rules and routes changed. Its sockets belong to the network namespace of the thread that made
// it; its methods may be called by any goroutine.
type RouterWatch struct {
	router  *Router
	changes *netlink.Conn
	present *vnetlink.Handle
}

// Watch begins to watch: what happens after it is noticed by Run, which must follow.
func (r *Router) Watch() (*RouterWatch, error) {
	present, err := open()
	if err != nil {
		return nil, fmt.Errorf("watch rules and routes: %w", err)
	}
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		present.Close()
		return nil, fmt.Errorf("watch rules and routes: %w", err)
	}
	w := &RouterWatch{r, c, present}
	groups := []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV4_ROUTE}
	if r.family == proxy.IPv6 {
		groups = []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_IPV6_ROUTE}
	}
	for _, g := range groups {
		if err := c.JoinGroup(g); err != nil {
			w.Close()
			return nil, fmt.Errorf("watch rules and routes: %w", err)
		}
	}
	return w, nil
}

// Close ends Run.
func (w *RouterWatch) Close() { _ = w.changes.Close() }

// Run calls check, from the calling goroutine, some time after rules or our routes were deleted, or lo changed. It
// returns when ctx ends, with nil, or when the kernel cannot be watched.
func (w *RouterWatch) Run(ctx context.Context, check func()) error {
	defer w.present.Close()
	defer context.AfterFunc(ctx, w.Close)()
	for {
		messages, err := w.changes.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // whatever was lost
		case err != nil:
			return fmt.Errorf("watch rules and routes: %w", err)
		case !anyConcerns(messages):
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(settle): // others may follow
		}
		check()
	}
}

// Missing says what is not as it should be, or "".
func (w *RouterWatch) Missing(want Routes) (string, error) { return w.router.missing(w.present, want) }

func anyConcerns(messages []netlink.Message) bool {
	for _, m := range messages {
		if concerns(m) {
			return true
		}
	}
	return false
}

// concerns tells whether a message may be about something of ours.
func concerns(m netlink.Message) bool {
	const (
		routeHeader = 12 // struct rtmsg
		linkHeader  = 16 // struct ifinfomsg
		loopback    = 1  // lo is the first interface of every namespace
	)
	switch uint16(m.Header.Type) {
	case unix.RTM_DELRULE:
		return true
	case unix.RTM_NEWLINK:
		return len(m.Data) >= linkHeader && binary.NativeEndian.Uint32(m.Data[4:]) == loopback
	case unix.RTM_DELROUTE:
		if len(m.Data) < routeHeader {
			return false
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[routeHeader:])
		if err != nil {
			return false
		}
		for ad.Next() {
			if ad.Type() == unix.RTA_TABLE {
				table := ad.Uint32()
				return table == deliverTable || table == lastTable
			}
		}
	}
	return false
}
