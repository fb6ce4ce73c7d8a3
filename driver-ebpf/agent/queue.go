// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"slices"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// enqueue keeps an offer until the program of another kind was fetched and loaded. A device
// offers all that it has at once. One offer of each kind waits, the newest.
func (a *Agent) enqueue(t Transport, o *protocol.Offer) error {
	if err := a.unqueueKind(t, o); err != nil {
		return err
	}
	a.queue = append(a.queue, o)
	return a.tell(t, o, protocol.ProgramFetching, nil)
}

// unqueueKind refuses the offer of the same kind that waits.
func (a *Agent) unqueueKind(t Transport, o *protocol.Offer) (err error) {
	a.queue = slices.DeleteFunc(a.queue, func(before *protocol.Offer) bool {
		if before.Kind != o.Kind {
			return false
		}
		if before.Digest != o.Digest {
			err = errors.Join(err, a.tell(t, before, protocol.ProgramRefused, errOvertaken))
		}
		return true
	})
	return err
}

// overtake fetches a walk now: a migration may wait for it. The program of another kind, which
// is on its way, begins anew after that.
func (a *Agent) overtake(t Transport, o *protocol.Offer) error {
	a.queue = slices.Insert(a.queue, 0, a.fetch.offer)
	a.fetch.end()
	return a.offered(t, o)
}

// unqueue returns the offer with that digest, which waits no more, or nil.
func (a *Agent) unqueue(d protocol.Digest) *protocol.Offer {
	i := slices.IndexFunc(a.queue, func(o *protocol.Offer) bool { return o.Digest == d })
	if i < 0 {
		return nil
	}
	o := a.queue[i]
	a.queue = slices.Delete(a.queue, i, i+1)
	return o
}

// nextOffer takes the offer that has waited longest, if no program is on its way.
func (a *Agent) nextOffer(t Transport) error {
	if len(a.queue) == 0 || a.fetch.offer != nil {
		return nil
	}
	o := a.queue[0]
	a.queue = a.queue[1:]
	return a.offered(t, o)
}
