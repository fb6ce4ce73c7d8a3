// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"bytes"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// config are the rules of the configuration space.
func config() []check {
	const get, set = "vhost-user.rst, VHOST_USER_GET_CONFIG", "vhost-user.rst, VHOST_USER_SET_CONFIG"
	return []check{
		{id: "VHU-CFG-1", source: get,
			text: "The reply to GET_CONFIG has the size and the offset of the request.", run: configShape},
		{id: "VHU-CFG-2", source: get,
			text: "A part of the configuration space reads as it does in the whole.", run: configParts},
		{id: "VHU-CFG-3", source: get,
			text: "What cannot be read is answered by an empty payload, and the connection goes on.",
			run:  configBeyond},
		{id: "VHU-CFG-4", source: get, advice: true,
			text: "A read that is longer than a message may be does the backend no harm.",
			run:  configTooLong},
		{id: "VHU-CFG-5", source: set,
			text: "SET_CONFIG of a read-only field changes nothing.", run: configReadOnly},
		{id: "VHU-CFG-6", source: set, advice: true,
			text: "SET_CONFIG of a read-only field is refused.", run: configReadOnlyRefused},
		{id: "VHU-CFG-7", source: set, advice: true,
			text: "SET_CONFIG that says more bytes than it brings is refused.", run: configShort},
	}
}

// configSize asks how much can be read, up to what a device has that the suite
// knows.
func (s *session) configSize(f *vhosttest.Frontend) uint32 {
	for _, n := range []uint32{32, 16, 8, 4, 1} {
		m, err := f.Ask(wire.GetConfig, wire.Config{Data: make([]byte, n)}.AppendTo(nil))
		s.must(err, "read %d bytes of config space", n)
		m.Close()
		if m.Size > 0 {
			return n
		}
	}
	s.Skipf("not a byte of config space can be read")
	return 0
}

func configShape(s *session) {
	f := s.realizeWith(wire.ProtocolConfig)
	n := s.configSize(f)
	for _, r := range [][2]uint32{{0, n}, {n / 2, n - n/2}, {n - 1, 1}} {
		m, err := f.Ask(wire.GetConfig, wire.Config{Offset: r[0], Data: make([]byte, r[1])}.AppendTo(nil))
		s.must(err, "read %d bytes at %d", r[1], r[0])
		c, err := wire.DecodeConfig(m.Payload)
		m.Close()
		if err != nil || c.Offset != r[0] || uint32(len(c.Data)) != r[1] {
			s.Failf("%d bytes at %d were asked for, the reply has a payload of %d bytes: %v (%v)",
				r[1], r[0], m.Size, c, err)
		}
	}
}

func configParts(s *session) {
	f := s.realizeWith(wire.ProtocolConfig)
	n := s.configSize(f)
	whole, err := f.GetConfig(0, n)
	s.must(err, "read %d bytes", n)
	for off := range n {
		part, err := f.GetConfig(off, 1)
		s.must(err, "read 1 byte at %d", off)
		if part[0] != whole[off] {
			s.Failf("byte %d reads %#x alone, and %#x with those before it", off, part[0], whole[off])
		}
	}
}

func configBeyond(s *session) {
	f := s.realizeWith(wire.ProtocolConfig)
	for _, off := range []uint32{1 << 20, 1<<32 - 1} {
		m, err := f.Ask(wire.GetConfig, wire.Config{Offset: off, Data: make([]byte, 8)}.AppendTo(nil))
		s.must(err, "read 8 bytes at %#x", off)
		m.Close()
		if m.Size != 0 {
			s.Failf("a read of 8 bytes at %#x was answered by %d bytes", off, m.Size)
		}
	}
	s.must(f.Barrier(), "ask after a read that could not be done")
}

func configTooLong(s *session) {
	for _, size := range []uint32{257, 4096, 1<<32 - 1} {
		f := s.realizeWith(wire.ProtocolConfig)
		p := wire.Config{Data: make([]byte, 256)}.AppendTo(nil)
		p[4], p[5], p[6], p[7] = byte(size), byte(size>>8), byte(size>>16), byte(size>>24)
		m, err := f.Ask(wire.GetConfig, p)
		if err == nil {
			m.Close()
			if m.Size != 0 {
				s.Failf("a read of %d bytes was answered by %d bytes", size, m.Size)
			}
		} else if !closed(err) {
			s.Failf("read %d bytes: %v", size, err)
		}
		s.serves(f, "after a read of %d bytes of config space", size)
	}
}

// readOnly returns the offset of a read-only byte, and the connection to try.
func (s *session) readOnly() (*vhosttest.Frontend, uint32) {
	s.need(s.cfg.Profile.ReadOnly >= 0, "no read-only field is known of this device")
	return s.realizeWith(wire.ProtocolConfig, wire.ProtocolReplyAck), uint32(s.cfg.Profile.ReadOnly)
}

func configReadOnly(s *session) {
	f, off := s.readOnly()
	before, err := f.GetConfig(off, 4)
	s.must(err, "read a field")
	_ = f.SetConfig(off, []byte{^before[0], ^before[1], ^before[2], ^before[3]})
	f.Close()
	after, err := s.realizeWith(wire.ProtocolConfig).GetConfig(off, 4)
	s.must(err, "read a field again")
	if !bytes.Equal(before, after) {
		s.Failf("a read-only field was %x, and is %x after SET_CONFIG", before, after)
	}
}

func configReadOnlyRefused(s *session) {
	f, off := s.readOnly()
	before, err := f.GetConfig(off, 4)
	s.must(err, "read a field")
	other := wire.Config{
		Offset: off, Data: []byte{^before[0], ^before[1], ^before[2], ^before[3]},
	}
	s.refuse(f, "another value for a read-only field", wire.SetConfig, other.AppendTo(nil))
}

func configShort(s *session) {
	f := s.realizeWith(wire.ProtocolConfig, wire.ProtocolReplyAck)
	p := wire.Config{Data: make([]byte, 4)}.AppendTo(nil)
	p[4] = 200
	s.refuse(f, "200 bytes promised and 4 brought", wire.SetConfig, p)
}
