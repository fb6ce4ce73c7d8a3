// SPDX-License-Identifier: Apache-2.0

package backend_test

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// dataMutants returns mutants with defects in memory, rings and the log.
func dataMutants() []mutant {
	return []mutant{
		{defect: "a second memory table is ignored", rules: rules("VHU-MEM-4"),
			proxy: onRequest(wire.SetMemTable, func(c *proxied, m *wire.Message) bool {
				return c.seen[wire.SetMemTable] == 1 || c.pretend(m)
			})},
		{defect: "mmap offsets are ignored", rules: rules("VHU-MEM-5"),
			proxy: onRequest(wire.SetMemTable, func(_ *proxied, m *wire.Message) bool {
				if t, err := wire.DecodeMemTable(m.Payload); err == nil {
					for i := range t {
						t[i].MmapOffset = 0
					}
					copy(m.Payload, t.AppendTo(nil))
				}
				return true
			})},
		{defect: "a region is looked for by its mmap offset", rules: rules("VHU-MEM-11"),
			proxy: onRequest(wire.RemMemReg, func(c *proxied, m *wire.Message) bool {
				if r, err := wire.DecodeSingleMemRegion(m.Payload); err == nil && r.MmapOffset != 0 {
					c.answer(m, wire.U64(1).AppendTo(nil))
					return false
				}
				return true
			})},
		{defect: "a third slot is not mapped", rules: rules("VHU-MEM-14"),
			proxy: onRequest(wire.AddMemReg, func(c *proxied, m *wire.Message) bool {
				return c.seen[wire.AddMemReg] < 3 || c.pretend(m)
			})},
		{defect: "GET_VRING_BASE drops the memory table", rules: rules("VHU-MEM-16"),
			proxy: onReply(wire.GetVringBase, func(c *proxied, _ *wire.Message) bool {
				c.inject(wire.SetMemTable, wire.MemTable{}.AppendTo(nil))
				return true
			})},
		{defect: "a ring whose address is refused keeps that of before", rules: rules("VHU-RING-17"),
			proxy: onRequest(wire.SetVringAddr, addr(func(c *proxied, a *wire.VringAddr) {
				if a.Desc < 0x10000 {
					if good, ok := c.memory.Load(a.Index); ok {
						*a = good.(wire.VringAddr)
					}
				}
				c.memory.Store(a.Index, *a)
			}))},
		{defect: "lengths in the used ring are too small", rules: rules("VHU-RING-16"),
			kick: func(q *vhostuser.Queue) { echoWith(q, func(n uint32) uint32 { return n / 2 }) }},
		{defect: "data is not what it should be", rules: rules("VHU-RING-1"),
			kick: func(q *vhostuser.Queue) {
				for {
					c, err := q.Pop()
					if c == nil || err != nil {
						return
					}
					n := copyChain(c)
					_, _ = c.WriteAt([]byte{1, 2, 3}, 5)
					if q.Push(c, n) != nil || q.Notify() != nil {
						return
					}
				}
			}},
		{defect: "the base that is set is ignored",
			rules: rules("VHU-RING-2", "VHU-STOP-2", "VHU-STOP-6"),
			proxy: onRequest(wire.SetVringBase, state(func(uint32) uint32 { return 0 }))},
		{defect: "a kick before ENABLE is lost", rules: rules("VHU-RING-3"),
			proxy: loseKick},
		{defect: "a disabled ring is processed", rules: rules("VHU-RING-5"),
			proxy: onRequest(wire.SetVringEnable, state(func(uint32) uint32 { return 1 }))},
		{defect: "a ring that was disabled stays so", rules: rules("VHU-RING-7"),
			proxy: onRequest(wire.SetVringEnable, func(c *proxied, m *wire.Message) bool {
				return c.seen[wire.SetVringEnable] < 9 || state(func(uint32) uint32 { return 0 })(c, m)
			})},
		{defect: "the driver is not called", rules: rules("VHU-NOTE-1", "VHU-EVT-1"),
			proxy: onRequest(wire.SetVringCall, func(c *proxied, m *wire.Message) bool {
				replaceFD(m, c.eventfd())
				return true
			})},
		{defect: "another call descriptor is ignored", rules: rules("VHU-NOTE-5"),
			proxy: onRequest(wire.SetVringCall, func(c *proxied, m *wire.Message) bool {
				return c.seen[wire.SetVringEnable] == 0 || c.pretend(m)
			})},
		{defect: "the base is one too high", rules: rules("VHU-STOP-1", "VHU-STOP-3"),
			proxy: onReply(wire.GetVringBase, state(func(n uint32) uint32 { return n + 1 }))},
		{defect: "a ring goes on after GET_VRING_BASE", rules: rules("VHU-STOP-4", "VHU-STOP-5"),
			kick: lateEcho, proxy: func() *proxy { return goesOn(1) }},
		{defect: "GET_VRING_BASE does not wait for requests in flight",
			rules: rules("VHU-STOP-3", "VHU-STOP-4", "VHU-LOG-9"),
			// 16 is the number of chains that the suite makes available.
			kick: lateEcho, proxy: func() *proxy { return goesOn(16) }},
		{defect: "a status of 0 makes the base 0", rules: rules("VHU-STOP-8"),
			proxy: onBoth(onRequest(wire.SetStatus, func(c *proxied, m *wire.Message) bool {
				if v, err := wire.DecodeU64(m.Payload); err == nil {
					c.memory.Store("status", v)
				}
				return true
			}), onReply(wire.GetVringBase, func(c *proxied, m *wire.Message) bool {
				if v, _ := c.memory.Load("status"); v == wire.U64(0) {
					return state(func(uint32) uint32 { return 0 })(c, m)
				}
				return true
			}))},
		{defect: "a base outlives its connection", rules: rules("VHU-CONN-2"),
			proxy: onReply(wire.GetVringBase, func(c *proxied, m *wire.Message) bool {
				return c.seen[wire.SetVringKick] > 0 || state(func(uint32) uint32 { return 5 })(c, m)
			})},
		{defect: "RESET_DEVICE does nothing", rules: rules("VHU-RST-1"),
			proxy: onRequest(wire.ResetDevice, drop)},
		{defect: "SET_LOG_BASE is not answered", rules: rules("VHU-LOG-1"),
			proxy: onReply(wire.SetLogBase, func(*proxied, *wire.Message) bool { return false })},
		{defect: "data is not logged",
			rules: rules("VHU-LOG-2", "VHU-LOG-5", "VHU-LOG-6", "VHU-LOG-7", "VHU-LOG-12",
				"VHU-LOGX-3", "VHU-LOGX-4"),
			proxy: onLog(func(c *proxied, m *wire.Message) { shadow(c, m, 0, onlyUsedRings(c)) })},
		{defect: "the used ring is not logged", rules: rules("VHU-LOG-3", "VHU-LOG-4", "VHU-LOGX-1"),
			proxy: onRequest(wire.SetVringAddr, addr(func(_ *proxied, a *wire.VringAddr) { a.Flags = 0 }))},
		{defect: "the used ring is logged at its place in memory", rules: rules("VHU-LOG-4"),
			proxy: onRequest(wire.SetVringAddr, addr(func(c *proxied, a *wire.VringAddr) {
				if first, loaded := c.memory.LoadOrStore(a.Used, a.Log); loaded {
					a.Log = first.(uint64)
				}
			}))},
		{defect: "pages are logged before they are written", rules: rules("VHU-LOG-6"),
			proxy: logBeforeWrite,
			tries: 4}, // it shows only if the suite reads the log in between
		{defect: "only the first page of a buffer is logged", rules: rules("VHU-LOG-7"),
			proxy: onLog(func(c *proxied, m *wire.Message) { shadow(c, m, 0, firstOfRun) })},
		{defect: "everything is logged, LOG_ALL or not", rules: rules("VHU-LOG-8", "VHU-LOG-10"),
			proxy: logsAlways},
		{defect: "marks are late", rules: rules("VHU-LOG-9"),
			proxy: onLog(func(c *proxied, m *wire.Message) {
				shadow(c, m, 5*time.Millisecond, func(p []uint64) []uint64 { return p })
			})},
		{defect: "the log's offset is ignored", rules: rules("VHU-LOG-11"),
			proxy: onRequest(wire.SetLogBase, func(_ *proxied, m *wire.Message) bool {
				if v, err := wire.DecodeLog(m.Payload); err == nil {
					v.Offset = 0
					copy(m.Payload, v.AppendTo(nil))
				}
				return true
			})},
		{defect: "another log is ignored", rules: rules("VHU-LOGX-1", "VHU-LOGX-2"),
			proxy: onRequest(wire.SetLogBase, func(c *proxied, m *wire.Message) bool {
				if c.seen[wire.SetLogBase] == 1 {
					return true
				}
				c.answer(m, wire.U64(0).AppendTo(nil))
				return false
			})},
		{defect: "new memory is not logged", rules: rules("VHU-LOGX-3", "VHU-LOGX-4"),
			proxy: onLog(func(c *proxied, m *wire.Message) {
				// The suite's machine has its first 8 MiB from 1 MiB on.
				shadow(c, m, 0, func(pages []uint64) (kept []uint64) {
					for _, p := range pages {
						if p < 9<<20/vhosttest.PageSize {
							kept = append(kept, p)
						}
					}
					return kept
				})
			})},
		{defect: "the log is not used again after a restart", rules: rules("VHU-LOGX-5"),
			proxy: func() *proxy {
				return &proxy{request: func(c *proxied, m *wire.Message) bool {
					if wire.Request(m.Request) == wire.SetVringAddr && c.seen[wire.GetVringBase] > 0 {
						return addr(func(_ *proxied, a *wire.VringAddr) { a.Flags = 0 })(c, m)
					}
					if wire.Request(m.Request) == wire.SetLogBase && c.seen[wire.GetVringBase] > 0 {
						c.answer(m, wire.U64(0).AppendTo(nil))
						return false
					}
					return true
				}}
			}},
		{defect: "a broken ring ends the backend", rules: rules("VHU-EVIL-5"), proxy: diesOfRing},
	}
}

// echoWith serves a queue as the echo device does. written changes the number of bytes
// that it reports as written.
func echoWith(q *vhostuser.Queue, written func(uint32) uint32) {
	for {
		c, err := q.Pop()
		if c == nil || err != nil {
			return
		}
		if q.Push(c, written(copyChain(c))) != nil || q.Notify() != nil {
			return
		}
	}
}

// onLog makes a proxy that calls f for SET_LOG_BASE. It also records where the used rings
// are.
func onLog(f func(c *proxied, m *wire.Message)) func() *proxy {
	return func() *proxy {
		return &proxy{request: func(c *proxied, m *wire.Message) bool {
			switch wire.Request(m.Request) {
			case wire.SetVringAddr:
				learnUsedRing(c, m)
			case wire.SetLogBase:
				f(c, m)
			}
			return true
		}}
	}
}

// loseKick does not pass on the enable of a ring if its kick descriptor is already
// signalled. So it behaves like a backend that has consumed the kick before the enable
// and waits for the next one.
func loseKick() *proxy {
	return &proxy{request: func(c *proxied, m *wire.Message) bool {
		switch wire.Request(m.Request) {
		case wire.SetVringKick:
			if v, err := wire.DecodeVringFD(m.Payload); err == nil && v.Index == 0 {
				c.memory.Store("kick", c.keep(m.FDs[0]))
			}
		case wire.SetVringEnable:
			fd, ok := c.memory.Load("kick")
			v, err := wire.DecodeVringState(m.Payload)
			if ok && err == nil && v.Index == 0 && v.Num == 1 && signalled(fd.(int)) {
				return c.pretend(m)
			}
		}
		return true
	}}
}

// signalled says whether an eventfd is signalled. The good backend does not read it
// before the ring is enabled.
func signalled(fd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err == nil && n > 0
}

// addrOf is the key under which a mutant stores the address of a ring.
type addrOf uint32

// goesOn makes a proxy that starts a ring again as soon as it has stopped. It reports the
// base rounded up to a multiple of n.
func goesOn(n uint32) *proxy {
	return &proxy{
		request: func(c *proxied, m *wire.Message) bool {
			req := wire.Request(m.Request)
			if v, err := wire.DecodeVringFD(m.Payload); err == nil && req == wire.SetVringKick {
				c.memory.Store(v.Index, c.keep(m.FDs[0]))
			}
			if a, err := wire.DecodeVringAddr(m.Payload); err == nil && req == wire.SetVringAddr {
				c.memory.Store(addrOf(a.Index), a.AppendTo(nil))
			}
			return true
		},
		reply: func(c *proxied, m *wire.Message) bool {
			v, err := wire.DecodeVringState(m.Payload)
			if err == nil && wire.Request(m.Request) == wire.GetVringBase {
				c.inject(wire.SetVringBase, v.AppendTo(nil))
				if a, ok := c.memory.Load(addrOf(v.Index)); ok {
					c.inject(wire.SetVringAddr, a.([]byte))
				}
				if fd, ok := c.memory.Load(v.Index); ok {
					c.inject(wire.SetVringKick, wire.VringFD{Index: v.Index}.AppendTo(nil), fd.(int))
				}
				c.inject(wire.SetVringEnable, wire.VringState{Index: v.Index, Num: 1}.AppendTo(nil))
				v.Num = (v.Num + n - 1) / n * n
				copy(m.Payload, v.AppendTo(nil))
			}
			return true
		},
	}
}

// logsAlways makes a proxy that keeps LOG_ALL on after the first log.
func logsAlways() *proxy {
	return &proxy{request: func(c *proxied, m *wire.Message) bool {
		switch wire.Request(m.Request) {
		case wire.SetFeatures:
			return number(func(v uint64) uint64 { return v | 1<<wire.FeatureLogAll })(c, m)
		case wire.SetVringAddr:
			return addr(func(_ *proxied, a *wire.VringAddr) { a.Flags = wire.VringFLog })(c, m)
		}
		return true
	}}
}

// diesOfRing makes a proxy that ends when the good backend reports a broken ring.
func diesOfRing() *proxy {
	return &proxy{request: func(c *proxied, m *wire.Message) bool {
		if wire.Request(m.Request) == wire.SetVringKick {
			broken := c.eventfd()
			c.inject(wire.SetVringErr, wire.VringFD{}.AppendTo(nil), broken)
			c.follow(time.Millisecond, func() {
				if signalled(broken) {
					c.die()
					c.frontend.Close()
				}
			})
		}
		return true
	}}
}
