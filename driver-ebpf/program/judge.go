// SPDX-License-Identifier: Apache-2.0

package program

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
)

// Why an offer is refused.
var (
	ErrKind      = errors.New("the policy takes no such kind")
	ErrSize      = errors.New("the object is larger than the policy allows")
	ErrUntrusted = errors.New("the policy neither pins it nor has a key that signed it")
	ErrExpired   = errors.New("the signature has expired")
	ErrReplayed  = errors.New("it was signed for another session")
	ErrOtherVM   = errors.New("it was not signed for this VM")
	ErrDowngrade = errors.New("a newer version was accepted before")
)

// uuidFile has the VM's UUID, as QEMU's -uuid sets it.
const uuidFile = "/sys/class/dmi/id/product_uuid"

// Judge decides about offers.
type Judge struct {
	Policy *Policy // not nil
	Newest *Newest // not nil
	VM     [16]byte
	Now    func() time.Time
}

// NewJudge returns a judge for this machine.
func NewJudge(p *Policy, newest *Newest) *Judge {
	return &Judge{Policy: p, Newest: newest, VM: readVM(uuidFile), Now: time.Now}
}

// readVM returns the UUID of the machine, or zeroes, which no signature is bound to.
func readVM(path string) (vm [16]byte) {
	text, err := os.ReadFile(path)
	if err != nil {
		return vm
	}
	id, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err != nil || len(id) != len(vm) {
		return vm
	}
	return [16]byte(id)
}

// Check returns nil if the policy takes the program that is offered in the session with
// that nonce. It needs nothing of the object but what the offer says.
func (j *Judge) Check(o *protocol.Offer, nonce uint64) error {
	switch {
	case j.Policy.Mask()&o.Kind.Mask() == 0:
		return ErrKind
	case o.Size > j.Policy.Limits.ObjectBytes:
		return fmt.Errorf("%d bytes, at most %d: %w", o.Size, j.Policy.Limits.ObjectBytes, ErrSize)
	case j.Policy.pins(o.Digest):
		return nil // the owner named this object: nothing that the host says matters
	}
	if err := j.checkSignature(o); err != nil {
		return err
	}
	unbound := [16]byte{}
	switch {
	case !j.Now().Before(o.Expires):
		return fmt.Errorf("at %v: %w", o.Expires.Format(time.RFC3339), ErrExpired)
	case o.Nonce != nonce && (o.Nonce != 0 || j.Policy.RequireNonce):
		return ErrReplayed
	case o.VM == unbound && j.Policy.RequireVM:
		return fmt.Errorf("it is bound to no VM, sign it with --for-vm: %w", ErrOtherVM)
	case o.VM != unbound && j.VM == unbound:
		return fmt.Errorf("this VM has no UUID: %w", ErrOtherVM)
	case o.VM != unbound && o.VM != j.VM:
		return ErrOtherVM
	}
	return j.Newest.Check(o)
}

func (j *Judge) checkSignature(o *protocol.Offer) error {
	if !o.Signed() {
		return fmt.Errorf("%w: %w", ErrUntrusted, bundle.ErrUnsigned)
	}
	keys, err := j.Policy.keys()
	if err != nil {
		return err
	}
	named := false
	for _, key := range keys {
		if bundle.Verify(o, key) == nil {
			return nil
		}
		named = named || bundle.KeyID(key) == o.KeyID
	}
	if named {
		return fmt.Errorf("%w: %w", ErrUntrusted, bundle.ErrSignature)
	}
	return fmt.Errorf("key %x: %w", o.KeyID, ErrUntrusted)
}

// Accept remembers that the program is in use, so that no lower version is taken later. A
// program for which it fails must not be used.
func (j *Judge) Accept(o *protocol.Offer) error {
	if j.Policy.pins(o.Digest) {
		return nil // its version is only what the host says
	}
	return j.Newest.Accept(o)
}
