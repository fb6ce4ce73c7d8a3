// SPDX-License-Identifier: Apache-2.0

package program

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
)

// Policy says which programs the guest's owner takes from the host. The zero value takes
// none.
//
// Who signs or pins a walk is trusted with all of the guest's memory and with its availability:
// a walk reads kernel memory, and what it reports as free is not migrated. The limits narrow
// what a mistake can do. They are no protection from malice.
type Policy struct {
	// Kinds are the kinds that are taken, such as "walk". Nil means all that the agent knows,
	// and an empty list none.
	Kinds []string `json:"kinds,omitempty"`
	// Pinned are the SHA-256 of objects that are taken whoever signed them, in hex.
	Pinned []string `json:"pinned,omitempty"`
	// KeyDir is a folder of public keys, *.pem. What one of them signed is taken. The
	// folder is read for each offer: a key that was removed counts no more.
	KeyDir string `json:"key_dir,omitempty"`
	// RequireVM and RequireNonce refuse signatures that are not bound to this VM, and to
	// this session of the agent.
	RequireVM    bool `json:"require_vm,omitempty"`
	RequireNonce bool `json:"require_nonce,omitempty"`
	// RequireKernelSignature refuses a program unless the kernel has checked its signature
	// against a certificate of KeyDir, *.crt, as Linux does since 6.18.
	RequireKernelSignature bool `json:"require_kernel_signature,omitempty"`
	// ReadyLoader keeps a loader ready that has read the kernel's types. It costs the guest
	// memory, and saves the time at a migration.
	ReadyLoader bool `json:"ready_loader,omitempty"`
	// Limits bound what an object may have.
	Limits Limits `json:"limits,omitzero"`
}

// What is read at most: bytes, and keys.
const (
	maxPolicy = 64 << 10
	maxKey    = 4 << 10
	maxKeys   = 64
)

// ReadPolicy reads a policy from a JSON file.
func ReadPolicy(path string) (*Policy, error) {
	text, err := readTrusted(path, maxPolicy)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	p, err := ParsePolicy(text)
	if err != nil {
		return nil, fmt.Errorf("read policy %s: %w", path, err)
	}
	return p, nil
}

// ParsePolicy reads a policy. A member or a name that it does not know is an error: the
// owner relies on it.
func ParsePolicy(text []byte) (*Policy, error) {
	if len(text) > maxPolicy {
		return nil, fmt.Errorf("%d bytes are more than %d", len(text), maxPolicy)
	}
	if err := checkMembers(text); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	p := &Policy{}
	if err := d.Decode(p); err != nil {
		return nil, err
	}
	for _, kind := range p.Kinds {
		if err := new(protocol.ProgramKind).Set(kind); err != nil {
			return nil, err
		}
	}
	for _, digest := range p.Pinned {
		if p, err := hex.DecodeString(digest); err != nil || len(p) != len(protocol.Digest{}) {
			return nil, fmt.Errorf("pinned %q is no SHA-256", digest)
		}
	}
	if p.KeyDir != "" && !filepath.IsAbs(p.KeyDir) {
		return nil, fmt.Errorf("key_dir %q is no absolute path", p.KeyDir)
	}
	if p.RequireKernelSignature && p.KeyDir == "" {
		return nil, errors.New("require_kernel_signature: certificates are in key_dir, which is missing")
	}
	if err := p.Limits.complete(); err != nil {
		return nil, err
	}
	return p, nil
}

// Takes says whether the policy takes any program at all.
func (p *Policy) Takes() bool { return p.Mask() != 0 }

// TakesWalk says whether it takes one that finds free memory.
func (p *Policy) TakesWalk() bool { return p.Mask()&protocol.KindWalk.Mask() != 0 }

// Mask returns the kinds that are taken, as ACCEPTS has them.
func (p *Policy) Mask() (mask uint32) {
	if p == nil || len(p.Pinned) == 0 && p.KeyDir == "" {
		return 0
	}
	for _, kind := range protocol.Kinds() {
		if p.Kinds == nil || slices.Contains(p.Kinds, kind.String()) {
			mask |= kind.Mask()
		}
	}
	return mask
}

func (p *Policy) pins(d protocol.Digest) bool {
	return slices.ContainsFunc(p.Pinned, func(s string) bool {
		pinned, err := hex.DecodeString(s)
		return err == nil && bytes.Equal(pinned, d[:])
	})
}

// keys reads the public keys.
func (p *Policy) keys() ([]ed25519.PublicKey, error) {
	if p.KeyDir == "" {
		return nil, nil
	}
	names, err := listTrusted(p.KeyDir, ".pem", maxKeys)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	var keys []ed25519.PublicKey
	for _, name := range names {
		text, err := readTrusted(name, maxKey)
		if err != nil {
			return nil, fmt.Errorf("read keys: %w", err)
		}
		key, err := bundle.ParsePublicKey(name, text)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}
