// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type testCap struct {
	id, kind, bar  uint8
	offset, length uint32
	multiplier     uint32
}

// makeConfig builds PCI configuration space with a list of capabilities.
func makeConfig(caps ...testCap) []byte {
	config := make([]byte, pciConfigLegacy)
	next := byte(0x40)
	link := &config[pciCapabilities]
	for _, c := range caps {
		*link = next
		p := config[next:]
		p[0], p[2], p[3], p[4] = c.id, capabilitySize+capNotifyExtra, c.kind, c.bar
		binary.LittleEndian.PutUint32(p[8:], c.offset)
		binary.LittleEndian.PutUint32(p[12:], c.length)
		binary.LittleEndian.PutUint32(p[16:], c.multiplier)
		link = &p[1]
		next += 20
	}
	return config
}

// qemuCaps are the capabilities of QEMU's virtio-pci.
var qemuCaps = []testCap{
	{id: 0x11},
	{id: 9, kind: 5},
	{id: 9, kind: capNotify, bar: 4, offset: 0x3000, length: 0x1000, multiplier: 4},
	{id: 9, kind: capDevice, bar: 4, offset: 0x2000, length: 0x1000},
	{id: 9, kind: capISR, bar: 4, offset: 0x1000, length: 0x1000},
	{id: 9, kind: capCommon, bar: 4, offset: 0, length: 0x1000},
}

var qemuWant = capabilities{
	common:           location{4, 0, 0x1000},
	notify:           location{4, 0x3000, 0x1000},
	isr:              location{4, 0x1000, 0x1000},
	device:           location{4, 0x2000, 0x1000},
	notifyMultiplier: 4,
}

func TestCapabilities(t *testing.T) {
	for name, c := range map[string]struct {
		config []byte
		want   capabilities
	}{
		"as QEMU has them": {makeConfig(qemuCaps...), qemuWant},
		"a second of a kind does not count": {
			makeConfig(append(qemuCaps[:6:6],
				testCap{id: 9, kind: capCommon, bar: 1, offset: 8, length: 64})...),
			qemuWant,
		},
		"a reserved BAR does not count": {
			makeConfig(append([]testCap{{id: 9, kind: capISR, bar: 7, length: 64}},
				qemuCaps...)...),
			qemuWant,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseCapabilities(c.config)
			if err != nil {
				t.Fatal(err)
			}
			unexported := cmp.AllowUnexported(capabilities{}, location{})
			if diff := cmp.Diff(c.want, got, unexported); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestCapabilitiesRefuse(t *testing.T) {
	loop := makeConfig(testCap{id: 9})
	loop[0x41] = 0x40
	outside := makeConfig()
	outside[pciCapabilities] = 0x3c
	for name, config := range map[string][]byte{
		"no bytes":                   nil,
		"an empty list":              makeConfig(),
		"a list that is a circle":    loop,
		"a capability in the header": outside,
		"no common configuration":    makeConfig(qemuCaps[:5]...),
		"a common configuration cut": makeConfig(append(qemuCaps[:5:5],
			testCap{id: 9, kind: capCommon, length: 8})...),
		"only the unprivileged part":     makeConfig(qemuCaps...)[:64],
		"a legacy device with no modern": makeConfig(testCap{id: 0x11}),
	} {
		t.Run(name, func(t *testing.T) {
			if caps, err := parseCapabilities(config); err == nil {
				t.Fatalf("got %+v", caps)
			}
		})
	}
	if _, err := parseCapabilities(makeConfig()); !errors.Is(err, errNotModern) {
		t.Fatalf("error %v, want errNotModern", err)
	}
}

func FuzzParseCapabilities(f *testing.F) {
	f.Add(makeConfig(qemuCaps...))
	f.Fuzz(func(t *testing.T, config []byte) {
		caps, err := parseCapabilities(config)
		if err == nil && (caps.common.bar >= pciBARs || caps.notify.bar >= pciBARs ||
			caps.common.length < commonConfigSize) {
			t.Fatalf("%+v", caps)
		}
	})
}
