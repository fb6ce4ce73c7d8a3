// SPDX-License-Identifier: Apache-2.0

package protocol

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// ProgramState tells what has become of a program in the guest.
type ProgramState uint32

// The states, in the order in which a program goes through them.
const (
	ProgramOffered   ProgramState = 0 // the device's: the driver has said nothing yet
	ProgramFetching  ProgramState = 1 // the policy wants it, its object is on the way
	ProgramLoading   ProgramState = 2
	ProgramActive    ProgramState = 3
	ProgramRefused   ProgramState = 4 // the one before stays in place
	ProgramWithdrawn ProgramState = 5 // by the device, or because another one has replaced it

	numProgramStates = 6
)

// String implements fmt.Stringer.
func (s ProgramState) String() string {
	if s < numProgramStates {
		return [...]string{
			"offered", "fetching", "loading", "active", "refused", "withdrawn",
		}[s]
	}
	return fmt.Sprintf("state(%d)", uint32(s))
}

// Final says whether the driver is done with an offer.
func (s ProgramState) Final() bool { return s >= ProgramActive }

// ProgramReport is the body of PROGRAM: what became of a program.
type ProgramReport struct {
	Digest  Digest
	Kind    ProgramKind
	State   ProgramState
	Version uint64
	FetchUS uint32 // from the offer to the last byte, microseconds
	LoadUS  uint32 // from there to the answer of the kernel
	Reason  string // with ProgramRefused: why; else a remark
	Log     string // the end of the verifier's log
}

// Lengths of the parts of PROGRAM in bytes.
const (
	ProgramReportSize = 1024
	MaxProgramReason  = 192
	MaxProgramLog     = ProgramReportSize - reportReason - MaxProgramReason

	reportReason = 64
	reportLog    = reportReason + MaxProgramReason
)

// Encode writes the body into p, which has at least ProgramReportSize bytes. A reason that
// is too long loses its end, and a log its beginning.
func (r *ProgramReport) Encode(p []byte) {
	p = p[:ProgramReportSize]
	clear(p)
	le := binary.LittleEndian
	copy(p, r.Digest[:])
	le.PutUint32(p[32:], uint32(r.Kind))
	le.PutUint32(p[36:], uint32(r.State))
	le.PutUint64(p[40:], r.Version)
	le.PutUint32(p[48:], r.FetchUS)
	le.PutUint32(p[52:], r.LoadUS)
	copy(p[reportReason:reportLog], r.Reason)
	copy(p[reportLog:], r.Log[max(len(r.Log)-MaxProgramLog, 0):])
}

// DecodeProgramReport reads and checks the body of PROGRAM. Its strings are safe to print;
// Log may have several lines.
func DecodeProgramReport(p []byte) (ProgramReport, error) {
	if len(p) < ProgramReportSize {
		return ProgramReport{}, fmt.Errorf("decode program: %d bytes: %w", len(p), ErrMalformed)
	}
	le := binary.LittleEndian
	r := ProgramReport{
		Digest:  Digest(p),
		Kind:    ProgramKind(le.Uint32(p[32:])),
		State:   ProgramState(le.Uint32(p[36:])),
		Version: le.Uint64(p[40:]),
		FetchUS: le.Uint32(p[48:]),
		LoadUS:  le.Uint32(p[52:]),
		Reason:  Printable(p[reportReason:reportLog]),
		Log:     printableLines(p[reportLog:ProgramReportSize]),
	}
	switch {
	case r.Kind == 0 || r.Kind > maxKind:
		return r, fmt.Errorf("decode program: kind %d: %w", r.Kind, ErrMalformed)
	case r.State == ProgramOffered || r.State >= numProgramStates:
		return r, fmt.Errorf("decode program: state %d: %w", r.State, ErrMalformed)
	case le.Uint64(p[56:]) != 0:
		return r, fmt.Errorf("decode program: reserved field is not 0: %w", ErrMalformed)
	}
	return r, nil
}

// printableLines is Printable for text that may have several lines.
func printableLines(p []byte) string {
	lines := strings.Split(string(p), "\n")
	for i, line := range lines {
		lines[i] = Printable([]byte(line))
		if strings.Contains(line, "\x00") {
			return strings.Join(lines[:i+1], "\n")
		}
	}
	return strings.Join(lines, "\n")
}
