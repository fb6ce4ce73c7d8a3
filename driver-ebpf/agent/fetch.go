// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// ProgramBuffer is the size of the event buffers of an agent that takes programs.
const ProgramBuffer = 4096

const (
	// part is how much of an object one GET asks for: what fits in a buffer.
	part = ProgramBuffer - protocol.DataHead
	// partsAhead is how many GETs are open. The transport has more event buffers.
	partsAhead = 6
	// partLimit is when a GET is repeated: the device may have had no buffer, or it may
	// be another one now.
	partLimit = time.Second
	// partTries is how often it is.
	partTries = 10
	// fetchLimit bounds a whole transfer, so that what the policy said of the offer holds.
	fetchLimit = time.Minute
)

// Why a program is not in use.
var (
	errReplaced  = errors.New("another program has replaced it")
	errOvertaken = errors.New("another offer came before it was in use")
	errGone      = errors.New("the host has the program no more")
	errSilent    = errors.New("the host does not deliver the program")
	errSlow      = fmt.Errorf("the host has not delivered the program in %v", fetchLimit)
	errLost      = errors.New("another program failed, and this one could not be attached again")
)

// fetch is the transfer of one object. A fetch outlives a session: if the next device
// offers the same object, it goes on.
type fetch struct {
	number   int             // of the fetch, to know its load by
	offer    *protocol.Offer // nil: none
	object   []byte          // what has come
	next     uint32          // from where to ask
	waiting  bool            // GETs are open in this session
	asked    time.Time       // when the last GET was sent, or the last part came
	tries    int             // without a part
	began    time.Time
	done     time.Time // when the last part came
	took     time.Duration
	loadTook time.Duration
	cancel   context.CancelFunc // of the load; nil before it
}

// load is the result of Programs.Load.
type load struct {
	fetch  int
	loaded io.Closer
	err    error
}

// end forgets the fetch. A load that is under way is dropped when it comes.
func (f *fetch) end() {
	if f.cancel != nil {
		f.cancel()
	}
	*f = fetch{number: f.number + 1}
}

// late says whether the whole fetch has taken too long.
func (f *fetch) late(now time.Time) bool { return now.Sub(f.began) >= fetchLimit }

// program handles an event about programs. In a walk the program must not change: then a
// WITHDRAW of it is kept for later.
func (a *Agent) program(ctx context.Context, t Transport, walking bool) error {
	e, err := t.Program()
	switch {
	case err != nil:
		a.lg.Warn("event is dropped", zap.Error(err))
		return nil
	case a.programs == nil || e.Nonce != a.nonce: // [FBPP-PROG-5]
		a.lg.Debug("event of another session", zap.Stringer("event", e.Type))
		return nil
	case walking && e.Type == protocol.EventWithdraw &&
		a.active.find(e.Digest) != nil && a.active.find(e.Digest).Kind == protocol.KindWalk:
		a.toWithdraw = a.active[protocol.KindWalk]
		return nil
	}
	f := &a.fetch
	// A fetch of an earlier session goes on only when the object is offered in this one.
	ours := f.waiting && f.offer.Digest == e.Digest
	switch {
	case e.Type == protocol.EventOffer:
		return a.offered(t, &e.Offer)
	case e.Type == protocol.EventWithdraw:
		return a.withdrawn(t, e.Digest)
	case e.Type == protocol.EventCount, e.Type == protocol.EventSample:
		return a.inquire(ctx, t, &e, walking)
	case !ours:
	case e.Type == protocol.EventGone:
		o := f.offer
		f.end()
		return a.tell(t, o, protocol.ProgramWithdrawn, errGone)
	case int(e.Offset) != len(f.object) || len(e.Bytes) > int(f.offer.Size)-len(f.object):
		// It repeats an earlier part, or one before it was lost: the latter is asked again.
	default:
		return a.arrived(ctx, t, e.Bytes)
	}
	return nil
}

// offered decides about an offer.
func (a *Agent) offered(t Transport, o *protocol.Offer) error {
	f := &a.fetch
	if a.active.find(o.Digest) != nil {
		return a.tell(t, o, protocol.ProgramActive, nil)
	}
	if err := a.programs.Check(o, a.nonce); err != nil {
		return a.tell(t, o, protocol.ProgramRefused, err)
	}
	switch {
	case f.offer != nil && f.offer.Kind != o.Kind && (f.waiting || f.cancel != nil):
		if o.Kind == protocol.KindWalk {
			return a.overtake(t, o)
		}
		return a.enqueue(t, o)
	case f.offer != nil && f.offer.Digest == o.Digest && f.cancel != nil:
		f.offer = o // of this session
		return a.tell(t, o, protocol.ProgramLoading, nil)
	case f.offer != nil && f.offer.Digest == o.Digest && !f.late(a.now()): // go on where it was left
		f.offer = o
	default:
		// One of another kind is of an earlier session. It is refused by nobody: this device
		// offers it again, if it has it.
		before := f.offer
		if before != nil && before.Kind == o.Kind && before.Digest != o.Digest {
			if err := a.tell(t, before, protocol.ProgramRefused, errOvertaken); err != nil {
				return err
			}
		}
		if err := a.unqueueKind(t, o); err != nil {
			return err
		}
		f.end()
		f.offer, f.began, f.object = o, a.now(), make([]byte, 0, o.Size)
	}
	if err := a.tell(t, o, protocol.ProgramFetching, nil); err != nil {
		return err
	}
	if err := a.askFrom(t, len(f.object)); err != nil {
		return err
	}
	a.programs.Prepare()
	return nil
}

// askFrom asks for the parts from an offset on.
func (a *Agent) askFrom(t Transport, offset int) error {
	a.fetch.next, a.fetch.waiting = uint32(offset), true
	return a.askAhead(t)
}

// askAhead keeps partsAhead GETs open.
func (a *Agent) askAhead(t Transport) error {
	f := &a.fetch
	for f.next < f.offer.Size && int(f.next)-len(f.object) < partsAhead*part {
		g := protocol.Get{
			Digest: f.offer.Digest, Offset: f.next, Length: min(part, f.offer.Size-f.next),
		}
		err := a.sendProgram(t, protocol.MessageGet, protocol.GetSize, g.Encode)
		if err != nil {
			return err
		}
		f.next += g.Length
	}
	f.asked = a.now()
	t.Flush()
	return nil
}

// arrived takes the next part of the object.
func (a *Agent) arrived(ctx context.Context, t Transport, p []byte) error {
	f := &a.fetch
	f.object = append(f.object, p...)
	f.tries = 0
	switch at := uint32(len(f.object)); {
	case at < f.offer.Size && len(p)%part != 0: // less than was asked for: the rest is missing
		return a.askFrom(t, len(f.object))
	case at < f.offer.Size:
		return a.askAhead(t)
	}
	f.done, f.waiting = a.now(), false
	f.took, a.timed = f.done.Sub(f.began), f.offer.Digest
	if err := a.programs.Check(f.offer, a.nonce); err != nil { // it may have changed meanwhile
		o := f.offer
		f.end()
		return a.tell(t, o, protocol.ProgramRefused, err)
	}
	if err := a.tell(t, f.offer, protocol.ProgramLoading, nil); err != nil {
		return err
	}
	loading, cancel := context.WithCancel(ctx)
	f.cancel = cancel
	number, offer, object := f.number, f.offer, f.object
	go func() {
		loaded, err := a.programs.Load(loading, offer, object)
		cancel()
		a.loads <- load{number, loaded, err}
		a.wake.call()
	}()
	return nil
}

// waitFor returns how long Run waits for an event.
func (a *Agent) waitFor() time.Duration {
	if !a.fetch.waiting {
		return Forever
	}
	now := a.now()
	wait := min(partLimit-now.Sub(a.fetch.asked), fetchLimit-now.Sub(a.fetch.began))
	return max(wait, time.Millisecond)
}

// retry asks again for a part that does not come.
func (a *Agent) retry(t Transport) error {
	f := &a.fetch
	why := errSilent
	switch {
	case !f.waiting:
		return nil
	case f.late(a.now()):
		why = errSlow
	case a.now().Sub(f.asked) < partLimit:
		return nil
	default:
		if f.tries++; f.tries <= partTries {
			return a.askFrom(t, len(f.object))
		}
	}
	o := f.offer
	f.end()
	return a.tell(t, o, protocol.ProgramRefused, why)
}
