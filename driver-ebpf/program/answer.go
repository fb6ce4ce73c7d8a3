// SPDX-License-Identifier: Apache-2.0

package program

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// errNoAnswer says that a child has said nothing.
var errNoAnswer = errors.New("read the answer")

// maxAnswer bounds what a child says, in bytes.
const maxAnswer = 32 << 10

// answer is what became of a request. A descriptor of the program comes with an empty Error.
type answer struct {
	Error string
	Log   string // of the verifier
	Times times
}

// respond hands the agent the program, or why there is none.
func respond(to *net.UnixConn, why error, took times, prog *ebpf.Program) error {
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
	if _, _, err := to.WriteMsgUnix(text, rights, nil); err != nil {
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
	fds := descriptors(oob[:oobn]) // an empty message, which is an error, can have some, too
	if err != nil || len(fds) > 1 {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	if err != nil {
		return a, nil, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	if len(fds) == 1 {
		if prog, err = ebpf.NewProgramFromFD(fds[0]); err != nil { // which has closed it
			return a, nil, fmt.Errorf("take over the program: %w", err)
		}
	}
	switch {
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
