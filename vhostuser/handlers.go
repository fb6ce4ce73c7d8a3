// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"os"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

func (b *Backend) setFeatures(m *wire.Message) error {
	v, err := wire.DecodeU64(m.Payload)
	if err != nil {
		return err
	}
	f := uint64(v)
	if extra := f &^ b.offered(); extra != 0 {
		return fmt.Errorf("features were not offered: %v", wire.Features(extra))
	}
	b.features.Store(f)
	b.noFeatures = false
	b.mem.TLB.On.Store(wire.Features(f).Has(wire.FeatureAccessPlatform))
	b.log.SetAll(wire.Features(f).Has(wire.FeatureLogAll))
	call(b.dev.FeaturesAcked, f&^vhostFeatures)
	if !wire.Features(f).Has(wire.FeatureProtocolFeatures) {
		// Rings of a frontend that knows no SET_VRING_ENABLE are always
		// enabled (vhost-user.rst, "Ring states").
		for _, q := range b.queues {
			q.enable(true)
		}
	}
	return nil
}

// forgetFeatures keeps rings from starting until features are accepted, because their
// format is not known. Running rings continue. If the refused request asked for logging,
// logging is switched on: a frontend that did not ask for an acknowledgement relies on it.
func (b *Backend) forgetFeatures(m *wire.Message) {
	b.noFeatures = true
	if v, err := wire.DecodeU64(m.Payload); err == nil && wire.Features(v).Has(wire.FeatureLogAll) {
		b.log.SetAll(true)
	}
}

func (b *Backend) setProtocolFeatures(m *wire.Message) error {
	v, err := wire.DecodeU64(m.Payload)
	if err != nil {
		return err
	}
	if extra := uint64(v) &^ b.offeredProtocol(); extra != 0 {
		return fmt.Errorf("protocol features were not offered: %v", wire.ProtocolFeatures(extra))
	}
	if err := checkInband(wire.ProtocolFeatures(v)); err != nil {
		return err
	}
	b.protocol.Store(uint64(v))
	b.lg.Debug("protocol features", zap.Stringer("features", wire.ProtocolFeatures(v)))
	return nil
}

func (b *Backend) setBackendReqFD(m *wire.Message) error {
	if kind, err := unix.GetsockoptInt(m.FDs[0], unix.SOL_SOCKET, unix.SO_TYPE); err != nil ||
		kind != unix.SOCK_STREAM {
		return errors.New("backend channel is not a stream socket")
	}
	conn, err := wire.NewConnFD(m.TakeFD(0), "vhost-user backend channel")
	if err != nil {
		return err
	}
	b.channel.start(conn, b.ProtocolFeature(wire.ProtocolReplyAck))
	return nil
}

func (b *Backend) setLogBase(m *wire.Message) (reply, error) {
	v, err := wire.DecodeLog(m.Payload)
	if err != nil {
		return reply{}, err
	}
	if err := b.log.Replace(v, m.FDs[0]); err != nil {
		// QEMU ignores the status, and would migrate without the pages that the device
		// writes. So end the connection: QEMU can migrate without the backend.
		return reply{}, fatalError{err}
	}
	return reply{payload: wire.U64(0).AppendTo(nil)}, nil
}

// setLogFD takes the eventfd of a frontend that wants to be told of each change
// of the log. QEMU never sends one.
func (b *Backend) setLogFD(m *wire.Message) error {
	flags, err := unix.FcntlInt(uintptr(m.FDs[0]), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK == 0 {
		// The frontend shares the descriptor's flags, so they cannot be changed. A
		// write to a blocking eventfd could wait for ever.
		return errors.New("log eventfd is in blocking mode")
	}
	b.log.SetEvent(m.TakeFD(0))
	return nil
}

func (b *Backend) getConfig(m *wire.Message) (reply, error) {
	c, err := wire.DecodeConfig(m.Payload)
	if err != nil {
		return reply{}, err
	}
	c.Data = make([]byte, len(c.Data))
	if err := b.dev.ReadConfig(c.Data, c.Offset); err != nil {
		// An empty payload tells the frontend (vhost-user.rst, GET_CONFIG).
		b.lg.Warn("config cannot be read", zap.Stringer("config", c), zap.Error(err))
		return reply{}, nil
	}
	return reply{payload: c.AppendTo(nil)}, nil
}

func (b *Backend) setConfig(m *wire.Message) error {
	c, err := wire.DecodeConfig(m.Payload)
	switch {
	case err != nil:
		return err
	case b.dev.WriteConfig == nil:
		return errors.New("config space is read-only")
	case c.Flags != wire.ConfigFrontend:
		// The state of a migrated device is not restored through its config.
		return fmt.Errorf("config write with flags %d is not supported", c.Flags)
	}
	return b.dev.WriteConfig(c.Data, c.Offset)
}

// resetOwner stops the rings. The request is deprecated; the specification says that a
// backend either ignores it or does this.
func (b *Backend) resetOwner(*wire.Message) error {
	b.stopQueues()
	return nil
}

func (b *Backend) resetDevice(*wire.Message) error {
	b.stopQueues()
	for _, q := range b.queues {
		q.enable(false)
		q.forgetSetup()
	}
	b.status = 0
	b.reset()
	return nil
}

// setStatus stores the status, and resets the device if it is zero. The rings' indices
// survive, because QEMU 7.2 resets the device before it asks for them. For some devices
// QEMU never sends DRIVER_OK, so nothing depends on it.
func (b *Backend) setStatus(m *wire.Message) error {
	v, err := wire.DecodeU64(m.Payload)
	if err != nil {
		return err
	}
	if v > 0xff {
		return fmt.Errorf("status %v has more than 8 bits", v)
	}
	b.status = uint8(v)
	if v == 0 {
		b.stopQueues()
		b.reset()
	}
	return nil
}

func (b *Backend) stopQueues() {
	for _, q := range b.queues {
		q.stop(true)
	}
	b.channel.suspend(true)
}

func (b *Backend) reset() {
	if b.dev.Reset != nil {
		b.dev.Reset()
	}
}

// extension passes a private request to the device, with its descriptors.
func (b *Backend) extension(e Extension, m *wire.Message) (reply, error) {
	files := make([]*os.File, len(m.FDs))
	for i := range files {
		files[i] = os.NewFile(uintptr(m.TakeFD(i)), fmt.Sprintf("%v fd %d", wire.Request(e.Request), i))
	}
	payload, fds, err := e.Handle(m.Payload, files)
	if err == nil && len(payload) > wire.MaxPayload {
		err = fmt.Errorf("reply of %d bytes is too long", len(payload))
	}
	if err != nil && e.Replies {
		b.lg.Warn("private request refused", zap.Stringer("request", wire.Request(e.Request)),
			zap.Error(err))
		return reply{}, nil
	}
	return reply{payload: payload, fds: fds}, err
}
