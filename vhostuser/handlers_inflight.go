// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// addInflightRules adds the requests of INFLIGHT_SHMFD.
func (b *Backend) addInflightRules(rules map[wire.Request]rule) {
	// A size of zero tells the frontend that there is no memory.
	none := wire.Inflight{}.AppendTo(nil)
	rules[wire.GetInflightFD] = rule{
		size: anySize, feature: wire.ProtocolInflightSHMFD, replies: true, refusal: none,
		handle: b.getInflightFD,
	}
	rules[wire.SetInflightFD] = rule{
		size: anySize, minFDs: 1, maxFDs: 1, feature: wire.ProtocolInflightSHMFD,
		handle: func(m *wire.Message) (reply, error) { return reply{}, b.setInflightFD(m) },
		forget: b.forgetInflight,
	}
}

// inflight is a connection's memory for tracking chains in flight. Only the message
// goroutine may use it; each queue has its part.
type inflight struct {
	file    *os.File // the memory that was made last, to be closed
	mapping *shm.Mapping
	refused bool // the last SET_INFLIGHT_FD was
}

// getInflightFD makes memory for the frontend to keep. Its size depends on the format of the
// rings, so the features must have been negotiated.
func (b *Backend) getInflightFD(m *wire.Message) (reply, error) {
	v, err := b.inflightDescription(m)
	if err != nil {
		return reply{}, err
	}
	v.MmapSize = inflightSize(b.dialect(), int(v.QueueSize)) * uint64(v.NumQueues)
	v.MmapOffset = 0
	fd, err := unix.MemfdCreate("inflight", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return reply{}, fmt.Errorf("make inflight memory: %w", os.NewSyscallError("memfd_create", err))
	}
	b.inflight.own(os.NewFile(uintptr(fd), "inflight"))
	if err := unix.Ftruncate(fd, int64(v.MmapSize)); err != nil {
		return reply{}, fmt.Errorf("make inflight memory: %w", os.NewSyscallError("ftruncate", err))
	}
	const seals = unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		b.lg.Warn("inflight memory is not sealed", zap.Error(err))
	}
	return reply{payload: v.AppendTo(nil)[:len(m.Payload)], fds: []int{fd}}, nil
}

// setInflightFD makes the queues track their chains in the memory of the
// message, from their next start on.
func (b *Backend) setInflightFD(m *wire.Message) error {
	v, err := b.inflightDescription(m)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(b.queues, (*Queue).isStarted); i >= 0 {
		return fmt.Errorf("set inflight memory: ring %d is started", i)
	}
	part := inflightSize(b.dialect(), int(v.QueueSize))
	if v.MmapSize < part*uint64(v.NumQueues) {
		return fmt.Errorf("set inflight memory: %v is too small", v)
	}
	mapping, err := shm.Map(m.FDs[0], v.MmapOffset, v.MmapSize)
	if err != nil {
		return fmt.Errorf("set inflight memory: %w", err)
	}
	for i, q := range b.queues {
		if i < int(v.NumQueues) {
			q.setInflight(mapping.Bytes()[uint64(i)*part:][:part:part], int(v.QueueSize))
		} else {
			q.setInflight(nil, 0)
		}
	}
	b.inflight.unmap()
	b.inflight.mapping, b.inflight.refused = mapping, false
	return nil
}

// forgetInflight keeps rings from starting until the frontend sends inflight memory: requests
// that are recorded in the old memory would be lost. Running rings continue.
func (b *Backend) forgetInflight(*wire.Message) {
	if slices.ContainsFunc(b.queues, (*Queue).isStarted) {
		return
	}
	for _, q := range b.queues {
		q.setInflight(nil, 0)
	}
	b.inflight.unmap()
	b.inflight.refused = true
}

func (b *Backend) inflightDescription(m *wire.Message) (wire.Inflight, error) {
	p := m.Payload
	if len(p) == wire.SizeInflight-4 {
		p = append(p[:len(p):len(p)], 0, 0, 0, 0) // the specification shows no padding
	}
	v, err := wire.DecodeInflight(p)
	switch {
	case err != nil:
		return v, err
	case v.NumQueues == 0 || int(v.NumQueues) > len(b.queues):
		return v, fmt.Errorf("inflight memory for %d queues, there are %d", v.NumQueues, len(b.queues))
	case v.QueueSize == 0 || v.QueueSize > 32768:
		return v, errors.New("inflight memory for queues of no possible size")
	}
	return v, nil
}

func (f *inflight) unmap() {
	if f.mapping != nil {
		_ = f.mapping.Unmap()
		f.mapping = nil
	}
}

// close frees the memory. No queue may use it any more.
func (f *inflight) close() {
	f.unmap()
	f.own(nil)
}

// own closes the file of before.
func (f *inflight) own(file *os.File) {
	if f.file != nil {
		_ = f.file.Close()
	}
	f.file = file
}
