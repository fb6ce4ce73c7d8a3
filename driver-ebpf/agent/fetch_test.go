// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// A device that delivers a byte now and then does not stretch a fetch.
func TestFetchIsBoundedInTime(t *testing.T) {
	h := newHost(t, 9000)
	p := &fakePrograms{builtIn: newFakeWalker(fakeStep{})}
	at := uint32(0)
	h.onSend = func(m sentMessage) {
		if m.header.Type != protocol.MessageGet {
			h.answer(m)
			return
		}
		g, err := protocol.DecodeGet(m.head[protocol.HeaderSize:])
		if err != nil || g.Offset != at {
			return
		}
		at++
		time.AfterFunc(900*time.Millisecond, func() {
			h.send(protocol.ProgramEvent{
				Type: protocol.EventData, Digest: g.Digest, Offset: g.Offset, Bytes: h.object[:1],
			})
		})
	}
	h.play(p, testGuest)
	wantStates(t, h, "fetching", "refused")
	if last := h.reports[len(h.reports)-1]; last.Reason != errSlow.Error() {
		t.Errorf("the host was told %+v", last)
	}
}

// A session in which nothing was offered cannot complete the fetch of the one before.
func TestDataWithoutAnOfferIsIgnored(t *testing.T) {
	h := newHost(t, 9000)
	p := &fakePrograms{
		builtIn: newFakeWalker(fakeStep{}),
		load:    func(context.Context, []byte) error { t.Error("it was loaded"); return nil },
	}
	sessions := 0
	h.onSend = func(m sentMessage) {
		switch m.header.Type {
		case protocol.MessageAccepts:
			if sessions++; sessions == 1 {
				h.answer(m)
				h.events <- protocol.Event{
					Type: protocol.EventChanged, Flags: protocol.EventHelloWanted,
				}
				return
			}
			h.nonce = m.header.Generation
			for at := 0; at < len(h.object); at += part {
				h.send(protocol.ProgramEvent{
					Type: protocol.EventData, Digest: h.digest(), Offset: uint32(at),
					Bytes: h.object[at:min(at+part, len(h.object))],
				})
			}
			h.send(protocol.ProgramEvent{Type: protocol.EventGone, Digest: h.digest()})
		case protocol.MessageGet:
		default:
			h.answer(m)
		}
	}
	h.play(p, testGuest)
	wantStates(t, h, "fetching")
	if sessions != 2 {
		t.Errorf("%d sessions", sessions)
	}
}
