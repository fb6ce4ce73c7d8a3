// SPDX-License-Identifier: Apache-2.0

package device

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
)

// ErrNoWalkAtMigration says that a program is of no use at a migration, which would wait for it.
var ErrNoWalkAtMigration = errors.New("only a walk can be pushed for migrations: they wait for it")

// PushProgram offers the guest a program, which is in a file of package bundle. It does not
// check the signature: that is up to the guest. The device keeps file.
func (d *Device) PushProgram(file []byte, at driver.When) error {
	b, err := bundle.Decode(file)
	if err != nil {
		return err
	}
	if b.Offer.Kind != protocol.KindWalk && at == driver.AtMigration {
		return ErrNoWalkAtMigration
	}
	d.driver.Push(b, at)
	return nil
}

// WithdrawProgram has the guest take a program out of use. The digest is in hex. If there is
// no such program, the error wraps [driver.ErrNoProgram].
func (d *Device) WithdrawProgram(digest string) error {
	p, err := hex.DecodeString(digest)
	if err != nil || len(p) != len(protocol.Digest{}) {
		return fmt.Errorf("withdraw %q: %w", digest, driver.ErrNoProgram)
	}
	return d.driver.Withdraw(protocol.Digest(p))
}
