// SPDX-License-Identifier: Apache-2.0

package program

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// ErrLimit says that an object has what the policy does not allow.
var ErrLimit = errors.New("the policy does not allow that")

// Limits are what an object may have. For a field that a policy does not have the default
// holds, which is what the kinds need. An empty list allows nothing, and 0 is no limit that a
// policy can set.
type Limits struct {
	ObjectBytes  uint32   `json:"object_bytes,omitempty"`
	Instructions int      `json:"instructions,omitempty"`
	MapBytes     uint64   `json:"map_bytes,omitempty"` // of its own maps together
	ProgramTypes []string `json:"program_types,omitempty"`
	MapTypes     []string `json:"map_types,omitempty"`
	Helpers      []string `json:"helpers,omitempty"` // kernel functions, without "bpf_"
	// AttachPoints are functions of the kernel. The agent chooses where a program is
	// attached, and never the object. The default leaves out seq_printf, which every
	// reader of such a file passes.
	AttachPoints []string `json:"attach_points,omitempty"`
}

// Defaults of Limits.
const (
	defaultObjectBytes  = 256 << 10
	defaultInstructions = 4096
	defaultMapBytes     = 64 << 10
)

// What a policy can allow at all. These names keep a program from what no kind needs by
// mistake. They do not make a hostile one harmless: see [Policy].
var (
	knownPrograms = map[string]ebpf.ProgramType{"kprobe": ebpf.Kprobe, "syscall": ebpf.Syscall}
	knownMaps     = map[string]ebpf.MapType{"array": ebpf.Array, "hash": ebpf.Hash}
	knownHelpers  = map[string]asm.BuiltinFunc{
		"map_lookup_elem":       asm.FnMapLookupElem,
		"map_update_elem":       asm.FnMapUpdateElem,
		"map_delete_elem":       asm.FnMapDeleteElem,
		"ktime_get_ns":          asm.FnKtimeGetNs,
		"get_current_task":      asm.FnGetCurrentTask,
		"get_smp_processor_id":  asm.FnGetSmpProcessorId,
		"probe_read_kernel":     asm.FnProbeReadKernel,
		"probe_read_kernel_str": asm.FnProbeReadKernelStr,
		"loop":                  asm.FnLoop,
	}
	// The functions that package freepages attaches a walk to.
	knownHooks = map[string]struct{}{"frag_show": {}, "zoneinfo_show": {}, "seq_printf": {}}
)

// complete sets the defaults, and refuses names that are not known.
func (l *Limits) complete() error {
	orDefault(&l.ObjectBytes, defaultObjectBytes)
	orDefault(&l.Instructions, defaultInstructions)
	orDefault(&l.MapBytes, defaultMapBytes)
	if l.Instructions < 0 {
		return fmt.Errorf("%d instructions", l.Instructions)
	}
	return errors.Join(
		names(&l.ProgramTypes, "program type", knownPrograms, "kprobe", "syscall"),
		names(&l.MapTypes, "map type", knownMaps, "array"),
		names(&l.Helpers, "helper", knownHelpers, "map_lookup_elem", "ktime_get_ns",
			"get_current_task", "get_smp_processor_id", "probe_read_kernel", "loop"),
		names(&l.AttachPoints, "attach point", knownHooks, "frag_show", "zoneinfo_show"),
	)
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func names[T any](field *[]string, what string, known map[string]T, standard ...string) error {
	if *field == nil {
		*field = standard
	}
	for _, name := range *field {
		if _, ok := known[name]; !ok {
			return fmt.Errorf("unknown %s %q, known are %q",
				what, name, slices.Sorted(maps.Keys(known)))
		}
	}
	return nil
}

// allows says whether one of the names stands for value.
func allows[T comparable](list []string, known map[string]T, value T) bool {
	return slices.ContainsFunc(list, func(name string) bool { return known[name] == value })
}

// AllowsHook says whether a program may be attached to a function.
func (l *Limits) AllowsHook(function string) bool {
	return slices.Contains(l.AttachPoints, function)
}

// contract is what an object of a kind has to have.
type contract struct {
	program string
	of      ebpf.ProgramType
	flags   uint32   // of the program
	shared  []string // maps that the agent makes: their memory is not the object's
	flat    bool     // its loops are not nested
}

// contracts are described in driver-ebpf/README.md. The kernel takes programs of type syscall
// only with the flag.
var contracts = map[protocol.ProgramKind]contract{
	protocol.KindWalk: {
		program: "walk_zone", of: ebpf.Kprobe, shared: []string{"control", "counts", "records"},
	},
	protocol.KindCensus: {
		program: "count_pages", of: ebpf.Syscall, flags: unix.BPF_F_SLEEPABLE,
		shared: []string{"census"}, flat: true,
	},
	protocol.KindSampler: {
		program: "sample_pages", of: ebpf.Syscall, flags: unix.BPF_F_SLEEPABLE,
		shared: []string{"sample"}, flat: true,
	},
}

// Parse reads the object of a kind, and checks it. The error wraps [ErrLimit] where the
// object has something else than its contract says and the limits allow.
func (l *Limits) Parse(
	kind protocol.ProgramKind, object []byte,
) (spec *ebpf.CollectionSpec, err error) {
	c, ok := contracts[kind]
	if !ok {
		return nil, fmt.Errorf("check the object: %v: %w", kind, ErrLimit)
	}
	defer func() { // the parser of ELF and BTF is not ours
		if r := recover(); r != nil {
			spec, err = nil, fmt.Errorf("parse the object: %v", r)
		}
	}()
	spec, err = ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("parse the object: %w", err)
	}
	if err := l.check(spec, c); err != nil {
		return nil, fmt.Errorf("check the object: %w", err)
	}
	return spec, nil
}

func (l *Limits) check(spec *ebpf.CollectionSpec, c contract) error {
	for name, p := range spec.Programs {
		if name != c.program {
			return fmt.Errorf("program %q beside %q: %w", name, c.program, ErrLimit)
		}
		if err := l.checkProgram(p, c, spec.Maps); err != nil {
			return fmt.Errorf("program %s: %w", name, err)
		}
	}
	if spec.Programs[c.program] == nil {
		return fmt.Errorf("it has no program %q: %w", c.program, ErrLimit)
	}
	var memory uint64
	for name, m := range spec.Maps {
		size, err := l.checkMap(m)
		if err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
		if !slices.Contains(c.shared, name) {
			memory += size // each is below 2^41: an object has too few for an overflow
		}
	}
	if memory > l.MapBytes {
		return fmt.Errorf("maps of %d bytes, at most %d: %w", memory, l.MapBytes, ErrLimit)
	}
	for _, name := range c.shared {
		if spec.Maps[name] == nil {
			return fmt.Errorf("it has no map %q: %w", name, ErrLimit)
		}
	}
	return nil
}

func (l *Limits) checkProgram(
	p *ebpf.ProgramSpec, c contract, all map[string]*ebpf.MapSpec,
) error {
	switch {
	case p.Type != c.of || !allows(l.ProgramTypes, knownPrograms, p.Type):
		return fmt.Errorf("type %v: %w", p.Type, ErrLimit)
	case p.AttachTo != "" || p.AttachTarget != nil || p.AttachType != 0:
		return fmt.Errorf("it names %q to attach to, which the agent chooses: %w", p.AttachTo, ErrLimit)
	case p.Flags != c.flags || p.Ifindex != 0:
		return fmt.Errorf("flags %#x: %w", p.Flags, ErrLimit)
	}
	count := 0
	for _, ins := range p.Instructions {
		count += int(ins.Width())
		if err := l.checkInstruction(&ins, all); err != nil {
			return err
		}
	}
	if count > l.Instructions {
		return fmt.Errorf("%d instructions, at most %d: %w", count, l.Instructions, ErrLimit)
	}
	if c.flat {
		return checkLoops(p.Instructions)
	}
	return nil
}

// checkInstruction allows what a compiler makes of a program, and nothing else.
func (l *Limits) checkInstruction(ins *asm.Instruction, all map[string]*ebpf.MapSpec) error {
	op := ins.OpCode
	switch class := op.Class(); {
	case class == asm.LdClass:
		return checkLoad(ins, all)
	case class == asm.LdXClass && (op.Mode() == asm.MemMode || op.Mode() == asm.MemSXMode),
		class == asm.StClass && op.Mode() == asm.MemMode,
		class == asm.StXClass && (op.Mode() == asm.MemMode || op.Mode() == asm.AtomicMode),
		class.IsALU():
		return nil
	case class.IsJump() && op.JumpOp() == asm.Call:
		return l.checkCall(ins)
	case class.IsJump() && op.JumpOp() <= asm.JSLE: // no may_goto, and nothing newer
		return nil
	}
	return fmt.Errorf("instruction %v: %w", op, ErrLimit)
}

// checkLoad checks an instruction that loads a constant of 64 bits. The loader replaces some
// by an address.
func checkLoad(ins *asm.Instruction, all map[string]*ebpf.MapSpec) error {
	name := ins.Reference()
	switch {
	case ins.OpCode != asm.LoadImmOp(asm.DWord):
		return fmt.Errorf("instruction %v: %w", ins.OpCode, ErrLimit)
	case ins.IsLoadFromMap() && all[name] == nil:
		return fmt.Errorf("it uses a map that is not its own: %w", ErrLimit)
	case ins.IsLoadFromMap(), ins.IsLoadOfFunctionPointer() && name != "":
		return nil
	case ins.Src == asm.R0 && name == "":
		return nil
	}
	// A name without a source of its own stands for a symbol of the kernel.
	return fmt.Errorf("it loads the address of %q by source %v: %w", name, ins.Src, ErrLimit)
}

func (l *Limits) checkCall(ins *asm.Instruction) error {
	switch {
	case ins.OpCode != asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call):
		return fmt.Errorf("instruction %v: %w", ins.OpCode, ErrLimit)
	case ins.IsFunctionCall() && ins.Reference() != "":
		return nil
	case ins.IsBuiltinCall() && ins.Reference() == "" &&
		allows(l.Helpers, knownHelpers, asm.BuiltinFunc(ins.Constant)):
		return nil
	case ins.IsBuiltinCall():
		return fmt.Errorf("it calls %v: %w", asm.BuiltinFunc(ins.Constant), ErrLimit)
	}
	return fmt.Errorf("it calls %q, which is neither a helper nor a function of its own: %w",
		ins.Reference(), ErrLimit)
}

// checkMap returns the memory that a map needs, about.
func (l *Limits) checkMap(m *ebpf.MapSpec) (uint64, error) {
	const harmless = unix.BPF_F_MMAPABLE | unix.BPF_F_RDONLY_PROG
	switch {
	case !allows(l.MapTypes, knownMaps, m.Type):
		return 0, fmt.Errorf("type %v: %w", m.Type, ErrLimit)
	case m.Pinning != ebpf.PinNone || m.InnerMap != nil || m.MapExtra != 0 || m.NumaNode != 0:
		return 0, fmt.Errorf("it is pinned, or has maps inside: %w", ErrLimit)
	case m.Flags&^harmless != 0:
		return 0, fmt.Errorf("flags %#x: %w", m.Flags, ErrLimit)
	case m.KeySize > 1<<12 || m.ValueSize > 1<<20 || m.MaxEntries > 1<<20:
		return 0, fmt.Errorf("%v is too large: %w", m, ErrLimit)
	}
	entry := (uint64(m.KeySize)+7)&^7 + (uint64(m.ValueSize)+7)&^7
	return entry * uint64(m.MaxEntries), nil
}
