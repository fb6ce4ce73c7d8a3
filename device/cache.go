// SPDX-License-Identifier: Apache-2.0

package device

import (
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/source"
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
	// CacheDrop has the guest's driver drop it before it says what is free. Without a driver
	// that can, it is sent as any memory.
	CacheDrop CachePolicy = "drop"
)

// CachePolicies returns all policies.
func CachePolicies() []CachePolicy { return []CachePolicy{CacheSend, CacheLast, CacheDrop} }

// Defaults of Options.Drop: as much as a guest drops in that time, about.
const (
	DefaultDropBytes = 1 << 30
	DefaultDropTime  = 200 * time.Millisecond
)

// Set implements flag.Value.
func (p *CachePolicy) Set(word string) error {
	if !slices.Contains(CachePolicies(), CachePolicy(word)) {
		return fmt.Errorf("%q is none of %s, %s, %s", word, CacheSend, CacheLast, CacheDrop)
	}
	*p = CachePolicy(word)
	return nil
}

// String implements flag.Value.
func (p *CachePolicy) String() string { return string(p.known()) }

// Type names the value in a program's help.
func (*CachePolicy) Type() string { return "policy" }

// known returns the policy that is followed: CacheSend for one that is none.
func (p *CachePolicy) known() CachePolicy {
	if slices.Contains(CachePolicies(), *p) {
		return *p
	}
	return CacheSend
}

// CacheDropping is how the policy CacheDrop is followed.
type CacheDropping struct {
	MostBytes uint64 `json:"most_bytes"` // that a guest is asked to drop
	MostMS    uint64 `json:"most_ms"`    // that it may take for that
	Possible  bool   `json:"possible"`
	Why       string `json:"why,omitempty"` // it is not possible
}

// dropping returns how the policy is followed, or nil for another policy. identity is that
// of the driver. d.mu is held.
func (d *Device) dropping(identity *driver.Identity) *CacheDropping {
	if d.cache != CacheDrop {
		return nil
	}
	c := &CacheDropping{
		MostBytes: d.drop.Bytes, MostMS: uint64(max(d.drop.Time.Milliseconds(), 0)),
	}
	switch {
	case !slices.Contains(d.sources, source.Source(d.driver)):
		c.Why = "the guest's driver is not asked: see --source"
	case identity == nil:
		c.Why = "no driver said hello"
	case identity.Refuses():
		c.Why = "the driver refuses"
	case identity.DropsCache():
		c.Possible = true
	case identity.Reason != "":
		c.Why = identity.Reason
	default:
		c.Why = "the guest's driver cannot: it is of an older version"
	}
	return c
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
