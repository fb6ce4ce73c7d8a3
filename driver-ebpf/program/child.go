// SPDX-License-Identifier: Apache-2.0

package program

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/driver-ebpf/kernelsig"
)

// ChildArg as the first argument makes the agent's program a loader's child. With another one it
// prepares before it is told what to load: it reads the kernel's types, or rehearses a load, too.
const (
	ChildArg   = "load-program"
	prepareArg = "prepare"
	readyArg   = "ready"
)

// childSocket is a child's descriptor for maps and for the answer. Its standard input has the
// request.
const childSocket = 3

// childLife is when a child ends itself after it has its request, should the agent be gone. Before,
// it ends with its standard input. childData bounds its memory in bytes.
const (
	childLife = 2 * time.Minute
	childData = 512 << 20
)

// maxMaps is how many maps come with a request.
const maxMaps = 16

// taken is what a child says when it has its request, before it looks at the object.
const taken = "taken"

// Child loads one program, for the agent that started this process with these arguments after
// [ChildArg], and hands it back.
func Child(args []string) error {
	how := ""
	if len(args) > 0 {
		how = args[0]
	}
	if err := confine(how != ""); err != nil {
		return err
	}
	conn, err := openSocket()
	if err != nil {
		return err
	}
	defer conn.Close()
	k := new(kernelTypes)
	switch how {
	case prepareArg:
		go func() { _, _ = k.get() }() // the load waits for it, and says what is wrong
	case readyArg:
		if err := k.rehearse(conn); err != nil {
			return err
		}
	}
	return k.serve(conn, func() error {
		time.AfterFunc(childLife, func() { os.Exit(1) })
		return limitLoad()
	})
}

// serve answers one request. It calls begin when it has that.
func (k *kernelTypes) serve(conn *net.UnixConn, begin func() error) error {
	r, maps, err := receive(conn)
	if err != nil {
		return err
	}
	if err := begin(); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(taken)); err != nil {
		return fmt.Errorf("confirm what to load: %w", err)
	}
	var took times
	prog, err := r.load(maps, k, &took)
	if err != nil {
		return respond(conn, err, took, nil)
	}
	defer prog.Close()
	return respond(conn, nil, took, prog)
}

func openSocket() (*net.UnixConn, error) {
	file := os.NewFile(childSocket, "socket")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("open the socket: %w", err)
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("the descriptor is no unix socket"), conn.Close())
	}
	return unixConn, nil
}

// receive waits for the request, and for its maps. These are few, and the process ends with them.
func receive(conn *net.UnixConn) (r request, maps []int, err error) {
	if r, err = readRequest(os.Stdin); err != nil {
		return r, nil, err
	}
	oob := make([]byte, unix.CmsgSpace(4*maxMaps))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return r, nil, fmt.Errorf("take over maps: %w", err)
	}
	if maps = descriptors(oob[:n]); len(maps) != len(r.Maps) {
		return r, nil, fmt.Errorf("take over maps: %d of %d came", len(maps), len(r.Maps))
	}
	return r, maps, nil
}

// load parses, checks and loads the object.
func (r *request) load(maps []int, k *kernelTypes, took *times) (*ebpf.Program, error) {
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
		m, err := ebpf.NewMapFromFD(maps[i])
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
	opts, name := ebpf.CollectionOptions{MapReplacements: shared}, contracts[r.Kind].program
	if checked { // the kernel relocates it, too
		defer took.load(time.Now())
		return r.KernelCheck.loadChecked(file, signature, spec, name, opts)
	}
	begun = time.Now()
	// By itself the library reads the types of each module, too. No kind needs them.
	if opts.Programs.KernelTypes, err = k.get(); err != nil {
		return nil, err
	}
	took.Types = time.Since(begun)
	defer took.load(time.Now())
	if r.Rehearsal {
		err := shorten(spec, r.Kind, opts.Programs.KernelTypes)
		if err != nil {
			return nil, err
		}
	}
	return loadOne(spec, name, opts, took)
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
