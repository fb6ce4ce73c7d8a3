// SPDX-License-Identifier: Apache-2.0

package program

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/kernelsig"
)

// builtIn is the walk that is built into the agent.
const builtIn = "../freepages/walk_x86_bpfel.o"

func mustObject(t testing.TB) []byte {
	t.Helper()
	object, err := os.ReadFile(builtIn)
	if err != nil {
		t.Fatal(err)
	}
	return object
}

func TestBuiltInWalkKeepsTheContract(t *testing.T) {
	l := defaultLimits(t)
	spec, err := l.Parse(protocol.KindWalk, mustObject(t))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, ins := range spec.Programs["walk_zone"].Instructions {
		n += int(ins.Width())
	}
	t.Logf("%d instructions", n)
}

// overPages are the programs that the build makes and that run over the guest's pages.
var overPages = map[protocol.ProgramKind]string{
	protocol.KindCensus:  "../pagecensus/census_bpfel.o",
	protocol.KindSampler: "../workingset/sampler_bpfel.o",
}

func mustOverPages(t testing.TB, kind protocol.ProgramKind) []byte {
	t.Helper()
	object, err := os.ReadFile(overPages[kind])
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// An object has to be of the kind that its signature names.
func TestObjectOfAnotherKindIsRefused(t *testing.T) {
	l := defaultLimits(t)
	objects := map[protocol.ProgramKind][]byte{protocol.KindWalk: mustObject(t)}
	for kind := range overPages {
		objects[kind] = mustOverPages(t, kind)
	}
	for of, object := range objects {
		for kind := range protocol.ProgramKind(32) {
			if _, err := l.Parse(kind, object); errors.Is(err, ErrLimit) == (kind == of) {
				t.Errorf("a %v as %v: %v", of, kind, err)
			}
		}
	}
	narrow := mustPolicy(t, `{"limits": {"program_types": ["kprobe"]}}`).Limits
	for kind := range overPages {
		if _, err := narrow.Parse(kind, objects[kind]); !errors.Is(err, ErrLimit) {
			t.Errorf("a type that the policy leaves out: got %v, want ErrLimit", err)
		}
	}
}

// What runs over the guest's pages has no more of its own than a walk may have.
func TestProgramOverPagesIsRefused(t *testing.T) {
	for want, change := range map[string]func(*ebpf.CollectionSpec, *ebpf.ProgramSpec){
		"type Kprobe": func(_ *ebpf.CollectionSpec, p *ebpf.ProgramSpec) { p.Type = ebpf.Kprobe },
		"flags 0x0":   func(_ *ebpf.CollectionSpec, p *ebpf.ProgramSpec) { p.Flags = 0 },
		"calls FnSysBpf": func(_ *ebpf.CollectionSpec, p *ebpf.ProgramSpec) {
			prepend(p, asm.FnSysBpf.Call())
		},
		"calls FnKallsymsLookupName": func(_ *ebpf.CollectionSpec, p *ebpf.ProgramSpec) {
			prepend(p, asm.FnKallsymsLookupName.Call())
		},
		`no map "`: func(s *ebpf.CollectionSpec, p *ebpf.ProgramSpec) {
			delete(s.Maps, "census")
			delete(s.Maps, "sample")
			p.Instructions = asm.Instructions{asm.Return()}
		},
	} {
		t.Run(want, func(t *testing.T) {
			l := defaultLimits(t)
			for kind := range overPages {
				spec, err := l.Parse(kind, mustOverPages(t, kind))
				if err != nil {
					t.Fatal(err)
				}
				change(spec, spec.Programs[contracts[kind].program])
				err = l.check(spec, contracts[kind])
				if !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), want) {
					t.Fatalf("a %v: got %v, want ErrLimit with %q", kind, err, want)
				}
			}
		})
	}
}

func prepend(p *ebpf.ProgramSpec, ins asm.Instruction) {
	p.Instructions = append(asm.Instructions{ins}, p.Instructions...)
}

func TestObjectIsRefused(t *testing.T) {
	walk := func(s *ebpf.CollectionSpec) *ebpf.ProgramSpec { return s.Programs["walk_zone"] }
	call := func(fn asm.BuiltinFunc) func(s *ebpf.CollectionSpec) {
		return func(s *ebpf.CollectionSpec) {
			prepend(walk(s), fn.Call())
		}
	}
	because := map[string]string{
		"no walk":                   `no program "walk_zone"`,
		"another program beside it": `program "x" beside`,
		"another type":              "type LSM",
		"a target to attach to":     `names "do_exit"`,
		"flags of the program":      "flags 0x10",
		"a helper that writes":      "calls FnProbeWriteUser",
		"a helper that sends":       "calls FnSendSignal",
		"a helper of no number":     "calls FnUnspec",
		"a kernel function":         "neither a helper nor a function",
		"a call of an address":      "instruction Call",
		"a map by its index":        "by source r5",
		"a load from a packet":      "instruction LdAbsW",
		"an address by its BTF":     "by source r3",

		"a kernel function, as a local one":   "neither a helper nor a function",
		"an address of a kernel symbol":       `address of "init_task"`,
		"a loop without an end that is known": "instruction JCONDImm",
		"a map by its descriptor":             "a map that is not its own",
		"too many instructions":               "instructions, at most 4096",
		"no records":                          "a map that is not its own",
		"a pinned map":                        "map progress: it is pinned",
		"an odd map":                          "map progress: type ProgramArray",
		"flags of a map":                      "map progress: flags 0x200",
		"a map in a map":                      "map progress: it is pinned, or has maps inside",
		"a large map":                         "bytes, at most 65536",
		"an enormous map":                     "is too large",
		"enormous records":                    "is too large",
	}
	for name, change := range map[string]func(*ebpf.CollectionSpec){
		"no walk":                   func(s *ebpf.CollectionSpec) { delete(s.Programs, "walk_zone") },
		"another program beside it": func(s *ebpf.CollectionSpec) { s.Programs["x"] = walk(s) },
		"another type":              func(s *ebpf.CollectionSpec) { walk(s).Type = ebpf.LSM },
		"a target to attach to":     func(s *ebpf.CollectionSpec) { walk(s).AttachTo = "do_exit" },
		"flags of the program":      func(s *ebpf.CollectionSpec) { walk(s).Flags = 16 },
		"a helper that writes":      call(asm.FnProbeWriteUser),
		"a helper that sends":       call(asm.FnSendSignal),
		"a helper of no number":     call(0),
		"a kernel function": func(s *ebpf.CollectionSpec) {
			call := asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call)
			prepend(walk(s), asm.Instruction{OpCode: call, Src: asm.PseudoKfuncCall})
		},
		"a kernel function, as a local one": func(s *ebpf.CollectionSpec) {
			call := asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call)
			prepend(walk(s), asm.Instruction{OpCode: call, Src: asm.R5})
		},
		"a call of an address": func(s *ebpf.CollectionSpec) {
			call := asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call).SetSource(asm.RegSource)
			prepend(walk(s), asm.Instruction{OpCode: call, Constant: int64(asm.FnKtimeGetNs)})
		},
		"an address of a kernel symbol": func(s *ebpf.CollectionSpec) {
			load := asm.LoadImm(asm.R1, 0, asm.DWord)
			prepend(walk(s), load.WithReference("init_task"))
		},
		"an address by its BTF": func(s *ebpf.CollectionSpec) {
			load := asm.LoadImm(asm.R1, 7, asm.DWord)
			load.Src = asm.R3 // BPF_PSEUDO_BTF_ID
			prepend(walk(s), load)
		},
		"a map by its index": func(s *ebpf.CollectionSpec) {
			load := asm.LoadImm(asm.R1, 0, asm.DWord)
			load.Src = asm.R5 // BPF_PSEUDO_MAP_IDX
			prepend(walk(s), load)
		},
		"a loop without an end that is known": func(s *ebpf.CollectionSpec) {
			prepend(walk(s), asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.JCOND)})
		},
		"a load from a packet": func(s *ebpf.CollectionSpec) {
			prepend(walk(s), asm.LoadAbs(0, asm.Word))
		},
		"a map by its descriptor": func(s *ebpf.CollectionSpec) {
			prepend(walk(s), asm.LoadMapPtr(asm.R1, 3))
		},
		"too many instructions": func(s *ebpf.CollectionSpec) {
			for range defaultInstructions {
				walk(s).Instructions = append(walk(s).Instructions, asm.Return())
			}
		},
		"no records":     func(s *ebpf.CollectionSpec) { delete(s.Maps, "records") },
		"a pinned map":   func(s *ebpf.CollectionSpec) { s.Maps["progress"].Pinning = ebpf.PinByName },
		"an odd map":     func(s *ebpf.CollectionSpec) { s.Maps["progress"].Type = ebpf.ProgramArray },
		"flags of a map": func(s *ebpf.CollectionSpec) { s.Maps["progress"].Flags = 1 << 9 },
		"a map in a map": func(s *ebpf.CollectionSpec) {
			s.Maps["progress"].InnerMap = s.Maps["records"]
		},
		"a large map":      func(s *ebpf.CollectionSpec) { s.Maps["progress"].MaxEntries = 1 << 16 },
		"an enormous map":  func(s *ebpf.CollectionSpec) { s.Maps["progress"].MaxEntries = 1<<32 - 1 },
		"enormous records": func(s *ebpf.CollectionSpec) { s.Maps["records"].ValueSize = 1<<32 - 1 },
	} {
		t.Run(name, func(t *testing.T) {
			l := defaultLimits(t)
			spec, err := l.Parse(protocol.KindWalk, mustObject(t))
			if err != nil {
				t.Fatal(err)
			}
			change(spec)
			err = l.check(spec, contracts[protocol.KindWalk])
			if !errors.Is(err, ErrLimit) || because[name] == "" ||
				!strings.Contains(err.Error(), because[name]) {
				t.Fatalf("got %v, want ErrLimit with %q", err, because[name])
			}
		})
	}
}

func TestPolicyNarrowsTheLimits(t *testing.T) {
	for _, text := range []string{
		`{"limits": {"helpers": ["loop", "map_lookup_elem", "ktime_get_ns"]}}`,
		`{"limits": {"instructions": 10}}`, `{"limits": {"map_bytes": 100}}`,
		`{"limits": {"map_types": ["hash"]}}`, `{"limits": {"program_types": []}}`,
	} {
		p := mustPolicy(t, text)
		if _, err := p.Limits.Parse(protocol.KindWalk, mustObject(t)); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: got %v, want ErrLimit", text, err)
		}
	}
	p := mustPolicy(t, `{"limits": {"attach_points": ["frag_show"]}}`)
	if !p.Limits.AllowsHook("frag_show") || p.Limits.AllowsHook("zoneinfo_show") {
		t.Error("attach points are not kept")
	}
	none, standard := mustPolicy(t, `{"limits": {"attach_points": []}}`), mustPolicy(t, `{}`)
	for _, hook := range []string{"frag_show", "zoneinfo_show", "seq_printf"} {
		if none.Limits.AllowsHook(hook) {
			t.Errorf("an empty list allows %s", hook)
		}
		if got := standard.Limits.AllowsHook(hook); got != (hook != "seq_printf") {
			t.Errorf("the default for %s is %v", hook, got)
		}
	}
}

// Whatever the bytes are, the parser returns.
func FuzzParseObject(f *testing.F) {
	f.Add(mustObject(f))
	f.Add(mustOverPages(f, protocol.KindCensus))
	f.Add(mustOverPages(f, protocol.KindSampler))
	f.Add([]byte("\x7fELF"))
	l := defaultLimits(f)
	f.Fuzz(func(t *testing.T, object []byte) {
		if len(object) > 1<<20 {
			return
		}
		for kind, name := range map[protocol.ProgramKind]string{
			protocol.KindWalk: "walk_zone", protocol.KindCensus: "count_pages",
			protocol.KindSampler: "sample_pages",
		} {
			spec, err := l.Parse(kind, object)
			if err != nil {
				continue
			}
			if spec.Programs[name] == nil {
				t.Fatalf("no %v", kind)
			}
			_, _ = kernelsig.NewInstaller(object, spec.Programs[name]) // as the child does
		}
	})
}
