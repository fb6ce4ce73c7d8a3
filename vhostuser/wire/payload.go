// SPDX-License-Identifier: Apache-2.0

package wire

import "fmt"

// MaxMemRegions is how many regions one SET_MEM_TABLE can carry
// (VHOST_MEMORY_BASELINE_NREGIONS).
const MaxMemRegions = 8

// U64 is the payload of the requests that carry one number, and of REPLY_ACK.
type U64 uint64

// AppendTo appends the encoded payload to b.
func (v U64) AppendTo(b []byte) []byte { return put64(b, uint64(v)) }

// String prints the number in hexadecimal.
func (v U64) String() string { return fmt.Sprintf("%#x", uint64(v)) }

// DecodeU64 decodes a U64.
func DecodeU64(p []byte) (U64, error) {
	r := reader{b: p}
	v := U64(r.u64())
	return v, r.end("number")
}

// VringState is the payload of SET_VRING_NUM, SET_VRING_BASE, GET_VRING_BASE
// and SET_VRING_ENABLE.
type VringState struct {
	Index, Num uint32
}

// AppendTo appends the encoded payload to b.
func (v VringState) AppendTo(b []byte) []byte { return put32(b, v.Index, v.Num) }

// String prints the fields.
func (v VringState) String() string { return fmt.Sprintf("vring %d: %d", v.Index, v.Num) }

// DecodeVringState decodes a VringState.
func DecodeVringState(p []byte) (VringState, error) {
	r := reader{b: p}
	v := VringState{Index: r.u32(), Num: r.u32()}
	return v, r.end("vring state")
}

// VringFLog (VHOST_VRING_F_LOG) in VringAddr.Flags says that writes to the used ring
// have to be logged, as writes to the guest address VringAddr.Log.
const VringFLog = 1 << 0

// VringAddr is the payload of SET_VRING_ADDR. Desc, Used and Avail are
// addresses in the frontend's process.
type VringAddr struct {
	Index, Flags           uint32
	Desc, Used, Avail, Log uint64
}

// AppendTo appends the encoded payload to b.
func (v VringAddr) AppendTo(b []byte) []byte {
	return put64(put32(b, v.Index, v.Flags), v.Desc, v.Used, v.Avail, v.Log)
}

// String prints the fields.
func (v VringAddr) String() string {
	return fmt.Sprintf("vring %d: desc %#x used %#x avail %#x log %#x flags %#x",
		v.Index, v.Desc, v.Used, v.Avail, v.Log, v.Flags)
}

// DecodeVringAddr decodes a VringAddr.
func DecodeVringAddr(p []byte) (VringAddr, error) {
	r := reader{b: p}
	v := VringAddr{Index: r.u32(), Flags: r.u32(), Desc: r.u64(), Used: r.u64(), Avail: r.u64(),
		Log: r.u64()}
	return v, r.end("vring address")
}

// VringFD is the payload of SET_VRING_KICK, SET_VRING_CALL and SET_VRING_ERR.
type VringFD struct {
	// Index is the queue, 0 to 255.
	Index uint32
	// NoFD says that no descriptor comes with the message.
	NoFD bool
}

const vringNoFD = 1 << 8

// AppendTo appends the encoded payload to b.
func (v VringFD) AppendTo(b []byte) []byte {
	u := uint64(v.Index & 0xff)
	if v.NoFD {
		u |= vringNoFD
	}
	return put64(b, u)
}

// String prints the fields.
func (v VringFD) String() string {
	if v.NoFD {
		return fmt.Sprintf("vring %d: no fd", v.Index)
	}
	return fmt.Sprintf("vring %d", v.Index)
}

// DecodeVringFD decodes a VringFD.
func DecodeVringFD(p []byte) (VringFD, error) {
	r := reader{b: p}
	u := r.u64()
	if u&^uint64(0x1ff) != 0 {
		return VringFD{}, fmt.Errorf("decode vring fd: reserved bits in %#x", u)
	}
	return VringFD{Index: uint32(u & 0xff), NoFD: u&vringNoFD != 0}, r.end("vring fd")
}

// MemRegion describes a piece of guest memory.
type MemRegion struct {
	// GuestAddr is the guest physical address.
	GuestAddr uint64
	// Size is the length in bytes.
	Size uint64
	// UserAddr is the address in the frontend's process.
	UserAddr uint64
	// MmapOffset is the offset at which the region begins in its file.
	MmapOffset uint64
}

func (v MemRegion) appendTo(b []byte) []byte {
	return put64(b, v.GuestAddr, v.Size, v.UserAddr, v.MmapOffset)
}

// String prints the fields.
func (v MemRegion) String() string {
	return fmt.Sprintf("guest %#x size %#x user %#x offset %#x", v.GuestAddr, v.Size, v.UserAddr,
		v.MmapOffset)
}

func (r *reader) region() MemRegion {
	return MemRegion{GuestAddr: r.u64(), Size: r.u64(), UserAddr: r.u64(), MmapOffset: r.u64()}
}

// MemTable is the payload of SET_MEM_TABLE.
type MemTable []MemRegion

// AppendTo appends the encoded payload to b.
func (v MemTable) AppendTo(b []byte) []byte {
	b = put32(b, uint32(len(v)), 0)
	for _, m := range v {
		b = m.appendTo(b)
	}
	return b
}

// String prints the regions.
func (v MemTable) String() string { return fmt.Sprintf("%d regions: %v", len(v), []MemRegion(v)) }

// DecodeMemTable decodes a MemTable of at most MaxMemRegions.
func DecodeMemTable(p []byte) (MemTable, error) {
	r := reader{b: p}
	n := r.u32()
	r.u32()
	if n > MaxMemRegions {
		return nil, fmt.Errorf("decode memory table: %d regions, at most %d fit", n, MaxMemRegions)
	}
	v := make(MemTable, n)
	for i := range v {
		v[i] = r.region()
	}
	return v, r.end("memory table")
}

// SingleMemRegion is the payload of ADD_MEM_REG and REM_MEM_REG.
type SingleMemRegion struct{ MemRegion }

// AppendTo appends the encoded payload to b.
func (v SingleMemRegion) AppendTo(b []byte) []byte { return v.appendTo(put64(b, 0)) }

// DecodeSingleMemRegion decodes a SingleMemRegion.
func DecodeSingleMemRegion(p []byte) (SingleMemRegion, error) {
	r := reader{b: p}
	r.u64()
	v := SingleMemRegion{r.region()}
	return v, r.end("memory region")
}

// Log is the payload of SET_LOG_BASE. A file comes with it. The dirty log has Size bytes
// of this file, from Offset on.
type Log struct {
	Size, Offset uint64
}

// AppendTo appends the encoded payload to b.
func (v Log) AppendTo(b []byte) []byte { return put64(b, v.Size, v.Offset) }

// String prints the fields.
func (v Log) String() string { return fmt.Sprintf("size %#x offset %#x", v.Size, v.Offset) }

// DecodeLog decodes a Log.
func DecodeLog(p []byte) (Log, error) {
	r := reader{b: p}
	v := Log{Size: r.u64(), Offset: r.u64()}
	return v, r.end("log")
}

// MaxConfigSize is how much config space one message can carry
// (VHOST_USER_MAX_CONFIG_SIZE).
const MaxConfigSize = 256

// Values of Config.Flags in SET_CONFIG: the driver's write, or state that is restored at
// the destination of a migration.
const (
	ConfigFrontend  = 0
	ConfigMigration = 1
)

// Config is the payload of GET_CONFIG and SET_CONFIG: a part of the config space.
type Config struct {
	Offset, Flags uint32
	Data          []byte
}

// AppendTo appends the encoded payload to b.
func (v Config) AppendTo(b []byte) []byte {
	return append(put32(b, v.Offset, uint32(len(v.Data)), v.Flags), v.Data...)
}

// String prints the fields.
func (v Config) String() string {
	return fmt.Sprintf("offset %d flags %d data %x", v.Offset, v.Flags, v.Data)
}

// DecodeConfig decodes a Config. Data aliases p.
func DecodeConfig(p []byte) (Config, error) {
	r := reader{b: p}
	v := Config{Offset: r.u32()}
	n := r.u32()
	v.Flags = r.u32()
	if n > MaxConfigSize {
		return Config{}, fmt.Errorf("decode config: %d bytes, at most %d fit", n, MaxConfigSize)
	}
	v.Data = r.take(int(n))
	return v, r.end("config")
}
