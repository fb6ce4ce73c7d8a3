// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// SetHostNotifier lets the driver notify queue i by writing to a page of the device, without
// the frontend. The page has size bytes, the page size of the host, at offset in the file fd.
// The caller keeps the ownership of fd. It needs HOST_NOTIFIER.
func (b *Backend) SetHostNotifier(i int, fd int, offset, size uint64) error {
	if err := b.needs(wire.ProtocolHostNotifier, wire.ProtocolBackendSendFD); err != nil {
		return fmt.Errorf("set host notifier: %w", err)
	}
	v := wire.VringArea{VringFD: wire.VringFD{Index: uint32(i)}, Size: size, Offset: offset}
	return b.request(wire.BackendVringHostNotifier, v.AppendTo(nil), fd)
}

// ClearHostNotifier ends the effect of SetHostNotifier for queue i.
func (b *Backend) ClearHostNotifier(i int) error {
	if err := b.needs(wire.ProtocolHostNotifier); err != nil {
		return fmt.Errorf("clear host notifier: %w", err)
	}
	v := wire.VringArea{VringFD: wire.VringFD{Index: uint32(i), NoFD: true}}
	return b.request(wire.BackendVringHostNotifier, v.AppendTo(nil))
}

func (b *Backend) request(req wire.BackendRequest, payload []byte, fds ...int) error {
	fd, err := b.channel.ask(&exchange{req: req, payload: payload, fds: fds}, nil)
	if fd >= 0 {
		unix.Close(fd)
		err = errors.Join(err, fmt.Errorf("answer to %v: a descriptor came with it", req))
	}
	return err
}

// needs checks that protocol features were negotiated.
func (b *Backend) needs(bits ...uint) error {
	for _, bit := range bits {
		if !b.ProtocolFeature(bit) {
			return fmt.Errorf("%v: %w", wire.ProtocolFeatures(1)<<bit, ErrNotNegotiated)
		}
	}
	return nil
}
