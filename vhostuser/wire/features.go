// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"math/bits"
	"strings"
)

// Feature bits of the transport and of vhost that this library deals with.
const (
	// FeatureLogAll (VHOST_F_LOG_ALL) makes the backend log every guest page
	// that it writes.
	FeatureLogAll = 26
	// FeatureIndirectDesc is VIRTIO_F_INDIRECT_DESC.
	FeatureIndirectDesc = 28
	// FeatureEventIdx is VIRTIO_F_EVENT_IDX.
	FeatureEventIdx = 29
	// FeatureProtocolFeatures is VHOST_USER_F_PROTOCOL_FEATURES.
	FeatureProtocolFeatures = 30
	// FeatureVersion1 is VIRTIO_F_VERSION_1.
	FeatureVersion1 = 32
	// FeatureRingPacked is VIRTIO_F_RING_PACKED.
	FeatureRingPacked = 34
	// FeatureInOrder is VIRTIO_F_IN_ORDER.
	FeatureInOrder = 35
	// FeatureAccessPlatform is VIRTIO_F_ACCESS_PLATFORM, which vhost-user.rst
	// calls by its old name, VIRTIO_F_IOMMU_PLATFORM.
	FeatureAccessPlatform = 33
)

// Protocol feature bits, as VHOST_USER_PROTOCOL_F_*.
const (
	ProtocolMQ                = 0
	ProtocolLogSHMFD          = 1
	ProtocolRARP              = 2
	ProtocolReplyAck          = 3
	ProtocolMTU               = 4
	ProtocolBackendReq        = 5
	ProtocolCrossEndian       = 6
	ProtocolCryptoSession     = 7
	ProtocolPageFault         = 8
	ProtocolConfig            = 9
	ProtocolBackendSendFD     = 10
	ProtocolHostNotifier      = 11
	ProtocolInflightSHMFD     = 12
	ProtocolResetDevice       = 13
	ProtocolInbandNotify      = 14
	ProtocolConfigureMemSlots = 15
	ProtocolStatus            = 16
	ProtocolXenMMap           = 17
	ProtocolSharedObject      = 18
	ProtocolDeviceState       = 19

	// LastProtocolFeature is the highest bit that the protocol has given out,
	// in versions after QEMU 10.0 too.
	LastProtocolFeature = 21
)

var protocolNames = [...]string{
	"MQ", "LOG_SHMFD", "RARP", "REPLY_ACK", "MTU", "BACKEND_REQ", "CROSS_ENDIAN",
	"CRYPTO_SESSION", "PAGEFAULT", "CONFIG", "BACKEND_SEND_FD", "HOST_NOTIFIER",
	"INFLIGHT_SHMFD", "RESET_DEVICE", "INBAND_NOTIFICATIONS", "CONFIGURE_MEM_SLOTS",
	"STATUS", "XEN_MMAP", "SHARED_OBJECT", "DEVICE_STATE", "GET_VRING_BASE_INFLIGHT", "SHMEM",
}

// ProtocolFeatures is a set of protocol feature bits that prints its names.
type ProtocolFeatures uint64

// Has says whether bit is in the set.
func (f ProtocolFeatures) Has(bit uint) bool { return bit < 64 && f>>bit&1 != 0 }

// String lists the names of the set's bits.
func (f ProtocolFeatures) String() string {
	return bitNames(uint64(f), func(bit int) string {
		if bit < len(protocolNames) {
			return protocolNames[bit]
		}
		return ""
	})
}

// Features is a set of virtio feature bits that prints its names.
type Features uint64

// Has says whether bit is in the set.
func (f Features) Has(bit uint) bool { return bit < 64 && f>>bit&1 != 0 }

// String lists the set's bits, by name where the library has a use for them.
func (f Features) String() string {
	return bitNames(uint64(f), func(bit int) string {
		switch bit {
		case FeatureLogAll:
			return "LOG_ALL"
		case FeatureIndirectDesc:
			return "INDIRECT_DESC"
		case FeatureEventIdx:
			return "EVENT_IDX"
		case FeatureProtocolFeatures:
			return "PROTOCOL_FEATURES"
		case FeatureVersion1:
			return "VERSION_1"
		case FeatureRingPacked:
			return "RING_PACKED"
		case FeatureInOrder:
			return "IN_ORDER"
		case FeatureAccessPlatform:
			return "ACCESS_PLATFORM"
		}
		return ""
	})
}

func bitNames(v uint64, name func(int) string) string {
	if v == 0 {
		return "none"
	}
	var names []string
	for ; v != 0; v &= v - 1 {
		bit := bits.TrailingZeros64(v)
		n := name(bit)
		if n == "" {
			n = fmt.Sprintf("bit%d", bit)
		}
		names = append(names, n)
	}
	return strings.Join(names, "|")
}
