// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// request handles a message of the frontend before it is passed on. It replaces the log,
// and hides logging from the backend if a Sabotage says so.
func (r *Relay) request(m *wire.Message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch wire.Request(m.Request) {
	case wire.SetMemTable:
		table, err := wire.DecodeMemTable(m.Payload)
		if err != nil {
			return err
		}
		r.regions = nil
		for i, v := range table {
			if err := r.addRegion(v, m.FDs[i]); err != nil {
				return err
			}
		}
	case wire.AddMemReg:
		v, err := wire.DecodeSingleMemRegion(m.Payload)
		if err != nil {
			return err
		}
		return r.addRegion(v.MemRegion, m.FDs[0])
	case wire.SetLogBase:
		return r.replaceLog(m)
	case wire.SetFeatures:
		if v, err := wire.DecodeU64(m.Payload); err != nil {
			return err
		} else if r.sabotage == HideLogAll {
			m.Payload = (v &^ (1 << wire.FeatureLogAll)).AppendTo(nil)
		}
	case wire.SetVringAddr:
		v, err := wire.DecodeVringAddr(m.Payload)
		if err != nil {
			return err
		}
		r.flagged = v.Flags&wire.VringFLog != 0
		if r.sabotage == HideRingLog {
			v.Flags &^= wire.VringFLog
			m.Payload = v.AppendTo(nil)
		}
	case wire.SetVringKick:
		v, err := wire.DecodeVringFD(m.Payload)
		if err != nil {
			return err
		}
		r.started[v.Index] = true
	}
	return nil
}

// reply handles a message of the backend before it is passed on.
func (r *Relay) reply(m *wire.Message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch wire.Request(m.Request) {
	case wire.SetLogBase:
		if r.next != nil {
			r.harvest() // of the log before
			r.logs.close()
			r.logs, r.next = r.next, nil
		}
	case wire.SetVringAddr:
		// From here on every write has to be marked. QEMU has each answer
		// before it changes the next ring: the last one counts.
		if r.flagged && r.logs != nil {
			r.begun = true
			r.logs.union = make(map[uint64]bool)
			return r.watch.Begin()
		}
	case wire.GetVringBase:
		v, err := wire.DecodeVringState(m.Payload)
		if err != nil {
			return err
		}
		// After this reply QEMU reads its log for the last time.
		delete(r.started, v.Index)
		r.harvest()
	}
	return nil
}

func (r *Relay) addRegion(v wire.MemRegion, fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at guest memory: %w", os.NewSyscallError("fstat", err))
	}
	r.regions = append(r.regions, region{MemRegion: v, inode: st.Ino})
	return nil
}

// replaceLog replaces the frontend's log in a message by one of the relay's.
func (r *Relay) replaceLog(m *wire.Message) error {
	v, err := wire.DecodeLog(m.Payload)
	if err != nil {
		return err
	}
	next, err := newLogs(v, m.TakeFD(0))
	if err != nil {
		return err
	}
	if r.logs != nil {
		next.union = r.logs.union
	}
	r.next.close()
	r.next = next
	return next.own.Give(func(v wire.Log, fd int) error {
		m.Payload = v.AppendTo(nil)
		if m.FDs[0], err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		return nil
	})
}
