// SPDX-License-Identifier: Apache-2.0

package program

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/kernelsig"
)

// ChildArg as the first argument makes the agent's program a loader's child.
const ChildArg = "load-program"

// Descriptors of a child. Its standard input has the request.
const (
	childSocket = 3
	childMaps   = 4 // and on: the maps, as the request names them
)

// childLife is when a child ends itself, should the agent be gone. childCPU bounds its
// processor time in seconds, childData its memory in bytes.
const (
	childLife = 2 * time.Minute
	childCPU  = 30
	childData = 512 << 20
)

// maxAnswer bounds what a child says, in bytes.
const maxAnswer = 32 << 10

// request is what a child is to load.
type request struct {
	Kind        protocol.ProgramKind
	Limits      Limits
	KernelCheck KernelCheck
	Constants   map[string]uint64 // values of variables, as far as the object has them
	Maps        []string          // that the agent made; their descriptors follow childMaps
	Object      []byte
}

// answer is what became of it. A descriptor of the program comes with an empty Error.
type answer struct {
	Error string
	Log   string // of the verifier
	Times times
}

// Child loads one program, for the agent that started this process, and hands it back.
func Child() error {
	time.AfterFunc(childLife, func() { os.Exit(1) })
	if err := confine(); err != nil {
		return err
	}
	var r request
	if err := json.NewDecoder(os.Stdin).Decode(&r); err != nil {
		return fmt.Errorf("read what to load: %w", err)
	}
	var took times
	prog, err := r.load(&took)
	if err != nil {
		return respond(err, took, nil)
	}
	defer prog.Close()
	return respond(nil, took, prog)
}

// load parses, checks and loads the object.
func (r *request) load(took *times) (*ebpf.Program, error) {
	begun := time.Now()
	file, signature, err := kernelsig.Split(r.Object)
	if err != nil {
		return nil, fmt.Errorf("parse the object: %w", err)
	}
	checked, err := r.KernelCheck.wants(signature, kernelsig.Supported)
	if err != nil {
		return nil, err
	}
	spec, err := r.Limits.Parse(r.Kind, file)
	if err != nil {
		return nil, err
	}
	took.Parse = time.Since(begun)
	shared := make(map[string]*ebpf.Map)
	for i, name := range r.Maps {
		m, err := ebpf.NewMapFromFD(childMaps + i)
		if err != nil {
			return nil, fmt.Errorf("take over map %s: %w", name, err)
		}
		defer m.Close()
		if spec.Maps[name] == nil {
			continue
		}
		shared[name] = m
		spec.Maps[name].MaxEntries = m.MaxEntries()
	}
	for name, value := range r.Constants {
		if err := setConstant(spec.Variables[name], value); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	begun = time.Now()
	kernel := systemTime()
	defer func() { took.Load, took.Kernel = time.Since(begun), systemTime()-kernel }()
	opts, name := ebpf.CollectionOptions{MapReplacements: shared}, contracts[r.Kind].program
	if checked { // the kernel relocates it, too
		return r.KernelCheck.loadChecked(file, signature, spec, name, opts)
	}
	// By itself the library reads the types of each module, too. No kind needs them.
	if opts.Programs.KernelTypes, err = btf.LoadKernelSpec(); err != nil {
		return nil, fmt.Errorf("load kernel types: %w", err)
	}
	took.Types, begun, kernel = time.Since(begun), time.Now(), systemTime()
	c, err := ebpf.NewCollectionWithOptions(spec, opts)
	if err != nil {
		return nil, fmt.Errorf("load the program: %w", err)
	}
	defer c.Close() // the program keeps its maps
	return c.DetachProgram(name), nil
}

// setConstant sets a variable of 4 or 8 bytes. An object need not have it.
func setConstant(v *ebpf.VariableSpec, value uint64) error {
	switch {
	case v == nil:
		return nil
	case v.Size() == 4 && value>>32 == 0:
		return v.Set(uint32(value))
	case v.Size() == 8:
		return v.Set(value)
	}
	return fmt.Errorf("%d bytes do not hold %#x: %w", v.Size(), value, ErrLimit)
}

// respond hands the agent the program, or why there is none.
func respond(why error, took times, prog *ebpf.Program) error {
	file := os.NewFile(childSocket, "socket")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return fmt.Errorf("open the socket: %w", err)
	}
	defer conn.Close()
	a := answer{Times: took}
	var rights []byte
	if why != nil {
		a.Error, a.Log = explain(why)
	} else {
		rights = unix.UnixRights(prog.FD())
	}
	text, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.New("the descriptor is no unix socket")
	}
	if _, _, err := unixConn.WriteMsgUnix(text, rights, nil); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

// readAnswer reads the answer of a child from its socket, and the program that came with it,
// which has to be of that type.
func readAnswer(
	conn *net.UnixConn, of ebpf.ProgramType,
) (a answer, prog *ebpf.Program, err error) {
	text, oob := make([]byte, maxAnswer), make([]byte, unix.CmsgSpace(4*4))
	n, oobn, flags, _, err := conn.ReadMsgUnix(text, oob)
	if err != nil {
		return a, nil, fmt.Errorf("read the answer: %w", err)
	}
	fds := descriptors(oob[:oobn])
	if len(fds) == 1 {
		prog, err = ebpf.NewProgramFromFD(fds[0]) // closes it after an error
	} else {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	switch {
	case err != nil:
		return a, nil, fmt.Errorf("take over the program: %w", err)
	case n == 0:
		err = io.ErrUnexpectedEOF
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = errors.New("it is too long")
	default:
		err = json.Unmarshal(text[:n], &a)
	}
	switch {
	case err != nil:
	case a.Error == "" && prog == nil:
		err = errors.New("it has neither a program nor a reason")
	case prog != nil && (a.Error != "" || prog.Type() != of):
		err = fmt.Errorf("it has a program of type %v, and the reason %q", prog.Type(), a.Error)
	default:
		return a, prog, nil
	}
	if prog != nil {
		prog.Close()
	}
	return a, nil, fmt.Errorf("read the answer: %w", err)
}

func descriptors(oob []byte) (fds []int) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range messages {
		if some, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, some...)
		}
	}
	return fds
}
