// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/internal/eventfd"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// addInbandRules adds the request of INBAND_NOTIFICATIONS.
func (b *Backend) addInbandRules(rules map[wire.Request]rule) {
	rules[wire.VringKick] = rule{
		size: sizeState, feature: wire.ProtocolInbandNotify,
		handle: func(m *wire.Message) (reply, error) { return reply{}, b.vringKick(m) },
	}
}

// vringKick starts a ring whose kicks are messages, and kicks it. It does nothing for a ring
// with a kick descriptor, or one that is polled.
func (b *Backend) vringKick(m *wire.Message) error {
	q, num, err := b.vringState(m)
	switch {
	case err != nil:
		return err
	case num != 0:
		return fmt.Errorf("kick vring: reserved field is %d", num)
	}
	if !q.isStarted() {
		if err := b.startInband(q); err != nil {
			return err
		}
	}
	return b.inband[q.index].Raise()
}

// startInband starts a ring with a kick descriptor that the backend itself raises.
func (b *Backend) startInband(q *Queue) error {
	fd, err := eventfd.New()
	if err != nil {
		return fmt.Errorf("kick vring: %w", err)
	}
	ours, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("kick vring: %w", os.NewSyscallError("fcntl", err))
	}
	b.inband[q.index].Replace(ours)
	return b.startQueue(q, fd)
}

// tellVring notifies the frontend by a message, if INBAND_NOTIFICATIONS was negotiated.
func (b *Backend) tellVring(req wire.BackendRequest, queue int) {
	if b.ProtocolFeature(wire.ProtocolInbandNotify) {
		b.channel.notify(note{req: req, queue: queue})
	}
}

// checkInband checks that in-band notifications were negotiated together with the features
// that they need: the backend channel and REPLY_ACK (vhost-user.rst, "In-band
// notifications").
func checkInband(f wire.ProtocolFeatures) error {
	if f.Has(wire.ProtocolInbandNotify) && !(f.Has(wire.ProtocolBackendReq) &&
		f.Has(wire.ProtocolReplyAck)) {
		return fatalError{errors.New("INBAND_NOTIFICATIONS were set without BACKEND_REQ and REPLY_ACK")}
	}
	return nil
}
