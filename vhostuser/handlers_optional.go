// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// addOptionalRules adds the requests under protocol features that few
// frontends want.
func (b *Backend) addOptionalRules(rules map[wire.Request]rule) {
	failed := wire.U64(1).AppendTo(nil)
	rules[wire.SetDeviceStateFD] = rule{
		size: sizeTransfer, minFDs: 1, maxFDs: 1, feature: wire.ProtocolDeviceState,
		replies: true, refusal: wire.U64(wire.StateNoFD | 1).AppendTo(nil), handle: b.setDeviceStateFD,
	}
	rules[wire.CheckDeviceState] = rule{
		feature: wire.ProtocolDeviceState, replies: true, refusal: failed, handle: b.checkDeviceState,
	}
	rules[wire.GetSharedObject] = rule{
		size: sizeUUID, feature: wire.ProtocolSharedObject, replies: true, refusal: []byte{}, handle: b.getSharedObject,
	}
	rules[wire.IOTLBMsg] = rule{
		size: sizeIOTLB, feature: always, replies: true, refusal: failed, handle: b.iotlbMsg,
		forget: b.forgetTranslations,
	}
	rules[wire.PostcopyAdvise] = rule{
		feature: wire.ProtocolPageFault, replies: true, refusal: []byte{}, handle: b.postcopyAdvise,
	}
	rules[wire.PostcopyListen] = rule{
		feature: wire.ProtocolPageFault,
		handle:  func(m *wire.Message) (reply, error) { return reply{}, b.postcopyListen(m) },
	}
	rules[wire.PostcopyEnd] = rule{
		feature: wire.ProtocolPageFault, replies: true, refusal: failed, handle: b.postcopyEnd,
	}
	rules[wire.VringKick] = rule{
		size: sizeState, feature: wire.ProtocolInbandNotify,
		handle: func(m *wire.Message) (reply, error) { return reply{}, b.vringKick(m) },
	}
}

// getSharedObject passes on a descriptor of the device's, or none.
func (b *Backend) getSharedObject(m *wire.Message) (reply, error) {
	id, err := wire.DecodeUUID(m.Payload)
	if err != nil {
		return reply{}, err
	}
	fd, err := b.dev.SharedObject(id)
	if err != nil {
		return reply{}, fmt.Errorf("get shared object %v: %w", id, err)
	}
	return reply{fds: []int{fd}}, nil
}

// vringKick starts a ring whose kicks are messages, and kicks it. A ring with a
// kick descriptor, or one that is polled, does without: those are preferred.
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
	return b.inband[q.index].raise()
}

// startInband gives the ring a kick descriptor that we raise ourselves.
func (b *Backend) startInband(q *Queue) error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("kick vring: %w", os.NewSyscallError("eventfd2", err))
	}
	ours, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("kick vring: %w", os.NewSyscallError("fcntl", err))
	}
	b.inband[q.index].replace(ours)
	return b.startQueue(q, fd)
}

// tellVring notifies the frontend without a descriptor, if it agreed to that.
func (b *Backend) tellVring(req wire.BackendRequest, queue int) {
	if b.ProtocolFeature(wire.ProtocolInbandNotify) {
		b.channel.notify(note{req: req, queue: queue})
	}
}

// checkInband makes sure that in-band notifications have a channel to go by,
// and that they are waited for (vhost-user.rst, "In-band notifications").
func checkInband(f wire.ProtocolFeatures) error {
	if f.Has(wire.ProtocolInbandNotify) && !(f.Has(wire.ProtocolBackendReq) && f.Has(wire.ProtocolReplyAck)) {
		return fatalError{errors.New("INBAND_NOTIFICATIONS were set without BACKEND_REQ and REPLY_ACK")}
	}
	return nil
}
