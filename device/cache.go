// SPDX-License-Identifier: Apache-2.0

package device

import (
	"errors"
	"fmt"

	"go.uber.org/zap"
)

// CachePolicy says what a migration does with the guest's cold page cache: clean pages
// of files that nobody has used lately. The zero value is CacheSend.
type CachePolicy string

// The policies for the cache.
const (
	// CacheSend sends it as any memory.
	CacheSend CachePolicy = "send"
	// CacheLast sends it at the end of the first pass; with postcopy, after the switch.
	CacheLast CachePolicy = "last"
	// CacheDrop has the guest drop it before it says what is free. No driver can do that
	// yet: see ErrNoDrop.
	CacheDrop CachePolicy = "drop"
)

// ErrNoDrop says that no guest can be asked to drop its cache.
var ErrNoDrop = errors.New("the guest's driver cannot be asked to drop cache: " +
	"use last, which needs no driver and sends the cache at the end")

// Set implements flag.Value. CacheDrop is an error that wraps ErrNoDrop.
func (p *CachePolicy) Set(word string) error {
	switch named := CachePolicy(word); named {
	case CacheSend, CacheLast:
		*p = named
		return nil
	case CacheDrop:
		return ErrNoDrop
	}
	return fmt.Errorf("%q is none of %s, %s, %s", word, CacheSend, CacheLast, CacheDrop)
}

// String implements flag.Value.
func (p *CachePolicy) String() string { return string(p.known()) }

// Type names the value in a program's help.
func (*CachePolicy) Type() string { return "policy" }

// known returns the policy that is followed: CacheLast or CacheSend.
func (p *CachePolicy) known() CachePolicy {
	if *p == CacheLast {
		return CacheLast
	}
	return CacheSend
}

// SetCache sets the policy for the cache, from the next request on. The device has to
// look into the guest's memory for CacheLast, and begins with it now. The error is that
// of CachePolicy.Set, and changes nothing.
func (d *Device) SetCache(word string) error {
	var p CachePolicy
	if err := p.Set(word); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cache == p {
		return nil
	}
	d.cache = p
	if p == CacheLast {
		d.observer.KeepLooking()
	}
	d.lg.Info("cache policy switched", zap.String("cache", string(p)))
	d.watchers.wake()
	return nil
}
