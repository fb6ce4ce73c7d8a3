// SPDX-License-Identifier: Apache-2.0

package backend_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/tests/conformance/backend"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// mutant is a backend with one defect, and the rules that have to find it.
type mutant struct {
	defect string
	rules  []string
	proxy  func() *proxy
	// device stands for the echo device's kick, if set.
	kick func(q *vhostuser.Queue)
	// tries is how often the rules are checked where a defect shows only sometimes; 0:
	// once.
	tries int
}

// onRequest makes a proxy that calls f for one request.
func onRequest(req wire.Request, f func(c *proxied, m *wire.Message) bool) func() *proxy {
	return func() *proxy {
		return &proxy{request: func(c *proxied, m *wire.Message) bool {
			return wire.Request(m.Request) != req || f(c, m)
		}}
	}
}

// onReply makes a proxy that calls f for the replies to one request.
func onReply(req wire.Request, f func(c *proxied, m *wire.Message) bool) func() *proxy {
	return func() *proxy {
		return &proxy{reply: func(c *proxied, m *wire.Message) bool {
			return wire.Request(m.Request) != req || f(c, m)
		}}
	}
}

// onBoth makes a proxy that has the hooks of both.
func onBoth(a, b func() *proxy) func() *proxy {
	return func() *proxy {
		p := &proxy{request: a().request, reply: b().reply}
		if p.request == nil || p.reply == nil {
			panic("onBoth takes one for requests and one for replies")
		}
		return p
	}
}

func rules(ids ...string) []string { return ids }

// drop is a hook that acknowledges a request instead of passing it on.
func drop(c *proxied, m *wire.Message) bool { return c.pretend(m) }

// number returns a hook that changes the number in a message.
func number(f func(v uint64) uint64) func(*proxied, *wire.Message) bool {
	return func(_ *proxied, m *wire.Message) bool {
		if v, err := wire.DecodeU64(m.Payload); err == nil {
			copy(m.Payload, wire.U64(f(uint64(v))).AppendTo(nil))
		}
		return true
	}
}

// state returns a hook that changes the number in a message about a ring.
func state(f func(n uint32) uint32) func(*proxied, *wire.Message) bool {
	return func(_ *proxied, m *wire.Message) bool {
		if v, err := wire.DecodeVringState(m.Payload); err == nil {
			v.Num = f(v.Num)
			copy(m.Payload, v.AppendTo(nil))
		}
		return true
	}
}

// addr returns a hook that changes the addresses in SET_VRING_ADDR.
func addr(f func(c *proxied, a *wire.VringAddr)) func(*proxied, *wire.Message) bool {
	return func(c *proxied, m *wire.Message) bool {
		if a, err := wire.DecodeVringAddr(m.Payload); err == nil {
			f(c, &a)
			copy(m.Payload, a.AppendTo(nil))
		}
		return true
	}
}

// lateEcho serves a queue as the echo device does, after a delay.
func lateEcho(q *vhostuser.Queue) {
	for {
		c, err := q.Pop()
		if c == nil || err != nil {
			return
		}
		time.Sleep(300 * time.Microsecond)
		if q.Push(c, copyChain(c)) != nil || q.Notify() != nil {
			return
		}
	}
}

func TestDefectsAreFoundByTheirRules(t *testing.T) {
	for _, m := range append(messageMutants(), dataMutants()...) {
		t.Run(m.defect, func(t *testing.T) {
			t.Parallel()
			good := newEcho()
			good.SpinTime = -1 // the device must not see buffers before a mutant's hook for the kick
			if m.kick != nil {
				good.Kick = m.kick
			}
			c := backend.Config{
				SocketPath: serve(t, &good.Device), Profile: backend.Echo(),
				Patience: time.Second,
			}
			if m.proxy != nil {
				c.SocketPath = serveMutant(t, c.SocketPath, m.proxy())
			}
			// What could not be checked in time, on a busy machine, was not missed.
			for tries, unchecked := max(1, m.tries), 5; ; {
				var missed []string
				failed := false
				for id, r := range results(t, c, m.rules...) {
					if r.Outcome != report.Fail {
						missed = append(missed, fmt.Sprintf("%s: %v %s", id, r.Outcome, r.Detail))
					}
					failed = failed || r.Outcome == report.Error
					t.Logf("%s: %s", id, r.Detail)
				}
				if len(missed) == 0 {
					break
				}
				if unchecked--; failed && unchecked > 0 {
					continue
				}
				if tries--; tries == 0 {
					t.Errorf("not found: %q", missed)
					break
				}
			}
		})
	}
}

// TestAProxyWithoutAMutationBreaksNoRule shows that the rules find the mutations, and not
// the proxy.
func TestAProxyWithoutAMutationBreaksNoRule(t *testing.T) {
	path := serveMutant(t, serve(t, &newEcho().Device), &proxy{})
	c := backend.Config{SocketPath: path, Profile: backend.Echo()}
	var all []string
	for _, m := range append(messageMutants(), dataMutants()...) {
		all = append(all, m.rules...)
	}
	for id, r := range results(t, c, all...) {
		if r.Outcome != report.Pass && r.Outcome != report.Skip {
			t.Errorf("%s: %v %s", id, r.Outcome, r.Detail)
		}
	}
}

// A backend may close the connection once it has refused a request.
func TestConnectionMayEndWithARefusal(t *testing.T) {
	closesAfter := &proxy{reply: func(c *proxied, m *wire.Message) bool {
		req := wire.Request(m.Request)
		v, err := wire.DecodeU64(m.Payload)
		if err != nil || v == 0 || req != wire.SetVringNum && req.Known() {
			return true
		}
		c.answer(m, m.Payload)
		c.frontend.Close()
		return false
	}}
	path := serveMutant(t, serve(t, &newEcho().Device), closesAfter)
	c := backend.Config{SocketPath: path, Profile: backend.Echo()}
	for id, r := range results(t, c, "VHU-ACK-2", "VHU-ACK-5") {
		if r.Outcome != report.Pass || len(r.Notes) == 0 {
			t.Errorf("%s: %v %s %q", id, r.Outcome, r.Detail, r.Notes)
		}
	}
}

// A backend that was told who owns it may refuse to be told again.
func TestOwnerIsSetOnce(t *testing.T) {
	once := onRequest(wire.SetOwner, func(c *proxied, _ *wire.Message) bool {
		if c.seen[wire.SetOwner] > 1 {
			c.frontend.Close()
		}
		return true
	})
	path := serveMutant(t, serve(t, &newEcho().Device), once())
	c := backend.Config{SocketPath: path, Profile: backend.Echo()}
	for id, r := range results(t, c, "VHU-MSG-*", "VHU-ACK-*", "VHU-FEAT-*") {
		if r.Outcome != report.Pass && r.Outcome != report.Skip {
			t.Errorf("%s: %v %s", id, r.Outcome, r.Detail)
		}
	}
}

// messageMutants returns mutants with defects in messages.
func messageMutants() []mutant {
	always := func(v uint64) func(uint64) uint64 { return func(uint64) uint64 { return v } }
	return []mutant{
		{defect: "replies ask for a reply", rules: rules("VHU-MSG-1"),
			proxy: func() *proxy {
				return &proxy{reply: func(_ *proxied, m *wire.Message) bool {
					m.Flags |= wire.FlagNeedReply
					return true
				}}
			}},
		{defect: "replies lack the reply bit", rules: rules("VHU-MSG-1"),
			proxy: func() *proxy {
				return &proxy{reply: func(_ *proxied, m *wire.Message) bool {
					m.Flags &^= wire.FlagReply
					return true
				}}
			}},
		{defect: "a reply is too short", rules: rules("VHU-MSG-2"),
			proxy: onReply(wire.GetQueueNum, func(_ *proxied, m *wire.Message) bool {
				m.Payload = m.Payload[:4]
				return true
			})},
		{defect: "requests are acknowledged unasked", rules: rules("VHU-MSG-5"),
			proxy: onRequest(wire.SetVringNum, func(c *proxied, m *wire.Message) bool {
				if !m.NeedReply() {
					c.answer(m, wire.U64(0).AppendTo(nil))
				}
				return true
			})},
		{defect: "an unknown request ends the connection", rules: rules("VHU-MSG-6", "VHU-ACK-5"),
			proxy: func() *proxy {
				return &proxy{request: func(c *proxied, m *wire.Message) bool {
					if !wire.Request(m.Request).Known() {
						c.frontend.Close()
					}
					return true
				}}
			}},
		{defect: "acknowledgements are forgotten", rules: rules("VHU-ACK-1"),
			proxy: onReply(wire.SetFeatures, func(*proxied, *wire.Message) bool { return false })},
		{defect: "acknowledgements are always zero",
			rules: rules("VHU-ACK-2", "VHU-MQ-2", "VHU-MEM-2", "VHU-MEM-10", "VHU-MEM-12"),
			proxy: func() *proxy {
				return &proxy{reply: func(_ *proxied, m *wire.Message) bool {
					switch wire.Request(m.Request) {
					case wire.SetVringNum, wire.SetVringBase, wire.SetMemTable, wire.AddMemReg, wire.RemMemReg:
						clear(m.Payload)
					}
					return true
				}}
			}},
		{defect: "requests are acknowledged though REPLY_ACK was not negotiated",
			rules: rules("VHU-ACK-4"),
			proxy: onRequest(wire.SetFeatures, func(c *proxied, m *wire.Message) bool {
				return c.pretend(m)
			})},
		{defect: "features change", rules: rules("VHU-FEAT-1"),
			proxy: onReply(wire.GetFeatures, func(c *proxied, m *wire.Message) bool {
				if c.seen[wire.GetFeatures] < 4 {
					return true
				}
				return number(func(v uint64) uint64 { return v ^ 1 })(c, m)
			})},
		{defect: "protocol features wait for SET_FEATURES", rules: rules("VHU-FEAT-2"),
			proxy: onRequest(wire.SetProtocolFeatures, drop)},
		{defect: "LOG_SHMFD is offered without LOG_ALL", rules: rules("VHU-FEAT-8"),
			proxy: onReply(wire.GetFeatures, number(func(v uint64) uint64 {
				return v &^ (1 << wire.FeatureLogAll)
			}))},
		{defect: "there are no queues", rules: rules("VHU-MQ-1"),
			proxy: onReply(wire.GetQueueNum, number(always(0)))},
		{defect: "call descriptors are kept", rules: rules("VHU-FD-3", "VHU-FD-4"),
			proxy: onRequest(wire.SetVringCall, func(c *proxied, m *wire.Message) bool {
				for _, fd := range m.FDs {
					dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
					if err != nil {
						c.t.Error(err)
					}
					c.t.Cleanup(func() { unix.Close(dup) })
				}
				return true
			})},
		{defect: "the configuration is read from its start, whatever the offset",
			rules: rules("VHU-CFG-2"),
			proxy: onBoth(onRequest(wire.GetConfig, func(c *proxied, m *wire.Message) bool {
				c.memory.Store("offset", [4]byte(m.Payload))
				clear(m.Payload[:4])
				return true
			}), onReply(wire.GetConfig, func(c *proxied, m *wire.Message) bool {
				if v, ok := c.memory.Load("offset"); ok && len(m.Payload) >= 4 {
					off := v.([4]byte)
					copy(m.Payload, off[:])
				}
				return true
			}))},
		{defect: "the reply to GET_CONFIG is cut", rules: rules("VHU-CFG-1"),
			proxy: onReply(wire.GetConfig, func(_ *proxied, m *wire.Message) bool {
				m.Payload = m.Payload[:len(m.Payload)/2]
				return true
			})},
		{defect: "what cannot be read reads as zero", rules: rules("VHU-CFG-3"),
			proxy: onReply(wire.GetConfig, func(_ *proxied, m *wire.Message) bool {
				if len(m.Payload) == 0 {
					m.Payload = make([]byte, 20)
				}
				return true
			})},
		{defect: "the status is not kept", rules: rules("VHU-STS-1"),
			proxy: onReply(wire.GetStatus, number(always(1)))},
		{defect: "POSTCOPY_ADVISE is taken for a success", rules: rules("VHU-POST-2"),
			proxy: onBoth(onRequest(wire.PostcopyAdvise, drop),
				onReply(wire.GetProtocolFeatures, number(func(v uint64) uint64 {
					return v &^ (1 << wire.ProtocolPageFault)
				})))},
		{defect: "the channel is taken without a descriptor", rules: rules("VHU-REQ-2"),
			proxy: onRequest(wire.SetBackendReqFD, drop)},
		{defect: "the backend serves one frontend only", rules: rules("VHU-CONN-1"),
			proxy: func() *proxy { return &proxy{once: true} }},
	}
}
