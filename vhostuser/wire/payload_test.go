// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

type payload interface{ AppendTo([]byte) []byte }

// decoders maps each payload type to its decoder.
var decoders = map[string]func([]byte) (payload, error){
	"U64":             func(p []byte) (payload, error) { return DecodeU64(p) },
	"VringState":      func(p []byte) (payload, error) { return DecodeVringState(p) },
	"VringAddr":       func(p []byte) (payload, error) { return DecodeVringAddr(p) },
	"VringFD":         func(p []byte) (payload, error) { return DecodeVringFD(p) },
	"MemTable":        func(p []byte) (payload, error) { return DecodeMemTable(p) },
	"SingleMemRegion": func(p []byte) (payload, error) { return DecodeSingleMemRegion(p) },
	"Log":             func(p []byte) (payload, error) { return DecodeLog(p) },
	"Config":          func(p []byte) (payload, error) { return DecodeConfig(p) },
	"IOTLB":           func(p []byte) (payload, error) { return DecodeIOTLB(p) },
	"DeviceState":     func(p []byte) (payload, error) { return DecodeDeviceState(p) },
	"UUID":            func(p []byte) (payload, error) { return DecodeUUID(p) },
	"Inflight":        func(p []byte) (payload, error) { return DecodeInflight(p) },
	"VringArea":       func(p []byte) (payload, error) { return DecodeVringArea(p) },
}

func samples() []payload {
	region := MemRegion{GuestAddr: 1 << 32, Size: 4096, UserAddr: 0x7f0000000000, MmapOffset: 8192}
	return []payload{
		U64(0), U64(0x1122334455667788),
		VringState{}, VringState{Index: 1, Num: 1024},
		VringAddr{Index: 2, Flags: VringFLog, Desc: 3, Used: 4, Avail: 5, Log: 6},
		VringFD{Index: 255}, VringFD{Index: 7, NoFD: true},
		MemTable{}, MemTable{region}, MemTable{region, {}, region, {}, {}, {}, {}, region},
		SingleMemRegion{region},
		Log{Size: 1 << 20, Offset: 4096},
		Config{Offset: 1, Flags: ConfigMigration, Data: []byte("data")},
		Config{Data: make([]byte, MaxConfigSize)},
		IOTLB{IOVA: 1 << 40, Size: 4096, UserAddr: 1 << 46, Perm: IOTLBRead | IOTLBWrite,
			Type: IOTLBUpdate},
		DeviceState{Direction: Load, Phase: PhaseStopped}, DeviceState{Direction: 7, Phase: 1},
		UUID{0: 1, 15: 2},
		Inflight{MmapSize: 1 << 20, MmapOffset: 64, NumQueues: 2, QueueSize: 32768},
		VringArea{VringFD: VringFD{Index: 3}, Size: 4096, Offset: 8192},
		VringArea{VringFD: VringFD{NoFD: true}},
	}
}

func TestPayloadsRoundTrip(t *testing.T) {
	for _, p := range samples() {
		name := reflect.TypeOf(p).Name()
		t.Run(fmt.Sprintf("%s %v", name, p), func(t *testing.T) {
			b := p.AppendTo([]byte("before"))[len("before"):]
			got, err := decoders[name](b)
			if err != nil || !reflect.DeepEqual(got, p) {
				t.Fatalf("got %v, %v", got, err)
			}
			for n := range b {
				if _, err := decoders[name](b[:n]); err == nil {
					t.Errorf("%d of %d bytes were accepted", n, len(b))
				}
			}
			if _, err := decoders[name](append(b, 0)); err == nil {
				t.Error("a trailing byte was accepted")
			}
			if !strings.ContainsAny(fmt.Sprint(p), "0123456789") {
				t.Errorf("prints as %q", fmt.Sprint(p))
			}
		})
	}
}

func TestPayloadLayoutIsThatOfTheSpecification(t *testing.T) {
	for _, tt := range []struct {
		p    payload
		want string
	}{
		{U64(0x0102), "0201000000000000"},
		{VringState{Index: 1, Num: 2}, "0100000002000000"},
		{VringFD{Index: 3, NoFD: true}, "0301000000000000"},
		{VringAddr{1, 2, 3, 4, 5, 6}, "0100000002000000" + "0300000000000000" + "0400000000000000" +
			"0500000000000000" + "0600000000000000"},
		{MemTable{{1, 2, 3, 4}}, "0100000000000000" + "0100000000000000" + "0200000000000000" +
			"0300000000000000" + "0400000000000000"},
		{SingleMemRegion{MemRegion{1, 2, 3, 4}}, "0000000000000000" + "0100000000000000" +
			"0200000000000000" + "0300000000000000" + "0400000000000000"},
		{Log{1, 2}, "0100000000000000" + "0200000000000000"},
		{IOTLB{1, 2, 3, 1, 4}, "0100000000000000" + "0200000000000000" + "0300000000000000" +
			"0104000000000000"},
		{DeviceState{Load, 2}, "0100000002000000"},
		{Inflight{1, 2, 3, 4}, "0100000000000000" + "0200000000000000" + "0300040000000000"},
		{UUID{1, 2, 15: 9}, "01020000000000000000000000000009"},
		{VringArea{VringFD{Index: 3, NoFD: true}, 1, 2}, "0301000000000000" + "0100000000000000" +
			"0200000000000000"},
		{Config{Offset: 1, Flags: 2, Data: []byte{9}}, "01000000" + "01000000" + "02000000" + "09"},
	} {
		if got := fmt.Sprintf("%x", tt.p.AppendTo(nil)); got != tt.want {
			t.Errorf("%T: got %s, want %s", tt.p, got, tt.want)
		}
	}
	h := Header{Request: 1, Flags: 2, Size: 3}
	if got := fmt.Sprintf("%x", h.AppendTo(nil)); got != "010000000200000003000000" {
		t.Errorf("header: got %s", got)
	}
}

func TestDecodersRefuseWhatCannotBe(t *testing.T) {
	if _, err := DecodeVringFD(U64(1 << 9).AppendTo(nil)); err == nil {
		t.Error("reserved bits of a vring fd were accepted")
	}
	if _, err := DecodeMemTable(MemTable(make([]MemRegion, 9)).AppendTo(nil)); err == nil {
		t.Error("nine regions were accepted")
	}
	if _, err := DecodeConfig(Config{Data: make([]byte, 257)}.AppendTo(nil)); err == nil {
		t.Error("257 bytes of config were accepted")
	}
	if _, err := DecodeU64(nil); !errors.Is(err, ErrShort) {
		t.Errorf("empty number: %v", err)
	}
	if _, err := DecodeU64(make([]byte, 9)); !errors.Is(err, ErrTrailing) {
		t.Errorf("long number: %v", err)
	}
}

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		v    fmt.Stringer
		want string
	}{
		{GetFeatures, "GET_FEATURES"},
		{CheckDeviceState, "CHECK_DEVICE_STATE"},
		{Request(0), "request 0x0"},
		{Request(44), "request 0x2c"},
		{BackendConfigChange, "CONFIG_CHANGE_MSG"},
		{BackendSharedObjectLookup, "SHARED_OBJECT_LOOKUP"},
		{BackendRequest(9), "backend request 0x9"},
		{Features(0), "none"},
		{Features(1<<FeatureVersion1 | 1<<FeatureLogAll | 1), "bit0|LOG_ALL|VERSION_1"},
		{Features(1<<FeatureIndirectDesc | 1<<FeatureEventIdx | 1<<FeatureProtocolFeatures),
			"INDIRECT_DESC|EVENT_IDX|PROTOCOL_FEATURES"},
		{ProtocolFeatures(1<<ProtocolMQ | 1<<ProtocolDeviceState | 1<<48), "MQ|DEVICE_STATE|bit48"},
		{ProtocolFeatures(3 << 20), "GET_VRING_BASE_INFLIGHT|SHMEM"},
		{Features(1 << FeatureAccessPlatform), "ACCESS_PLATFORM"},
		{Save, "save"},
		{Load, "load"},
		{Direction(2), "direction 2"},
		{UUID{0x12, 0x34, 0x56, 0x78, 0x9a}, "12345678-9a00-0000-0000-000000000000"},
		{Header{Request: uint32(SetOwner), Flags: Version}, "SET_OWNER flags 0x1 size 0"},
	} {
		if got := tt.v.String(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	for r := GetFeatures; r <= lastRequest; r++ {
		if requestNames[r] == "" {
			t.Errorf("request %d has no name", r)
		}
	}
	if Features(1).Has(64) || ProtocolFeatures(1).Has(64) {
		t.Error("there is no bit 64")
	}
}

func TestInvalidHeadersAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name string
		h    Header
		ok   bool
	}{
		{"a request", Header{Flags: Version}, true},
		{"a request that wants an acknowledgement", Header{Flags: Version | FlagNeedReply}, true},
		{"flags of the future", Header{Flags: Version | 1<<20}, true},
		{"no version", Header{}, false},
		{"another version", Header{Flags: 2}, false},
		{"a reply", Header{Flags: ReplyFlags}, false},
		{"a long payload", Header{Flags: Version, Size: MaxPayload + 1}, false},
	} {
		if err := tt.h.CheckRequest(); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// FuzzDecode gives the same bytes to each decoder. A payload that it accepts must encode
// to the same bytes.
func FuzzDecode(f *testing.F) {
	for _, p := range samples() {
		f.Add(p.AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, decode := range decoders {
			p, err := decode(b)
			if err != nil {
				continue
			}
			again, err := decode(p.AppendTo(nil))
			if err != nil || !reflect.DeepEqual(again, p) {
				t.Errorf("%s: %v became %v, %v", name, p, again, err)
			}
			_ = fmt.Sprint(p)
		}
	})
}
