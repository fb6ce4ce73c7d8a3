// SPDX-License-Identifier: Apache-2.0

package protocol

import (
	"encoding/binary"
	"fmt"
)

// Numbers of a census (section 9.5). Package pages has names for the classes, in this order.
const CensusClasses = 12

// Indices of the counts of a class. Each but the first is of a part of its pages.
const (
	CensusPages = iota // all pages of the class
	CensusMapped
	CensusDirty
	CensusWriteback
	CensusSwapCache
	CensusClean
	CensusActive
	CensusCold
	CensusCounts // how many there are
)

// CensusReport is the body of CENSUS: what the guest uses its memory for.
type CensusReport struct {
	Digest   Digest // of the program that has counted
	Number   uint64 // of the COUNT that is answered
	Failed   bool   // nothing was counted: see Reason
	TookUS   uint32 // microseconds, from the first run of the program to the last
	RunMaxUS uint32 // the longest run of the program
	Runs     uint32
	Counts   [CensusClasses][CensusCounts]uint64
	Reason   string // with Failed: why
}

// Lengths of the parts of CENSUS in bytes.
const (
	CensusReportSize = 1024
	MaxCensusReason  = CensusReportSize - censusReason

	censusCounts = 64
	censusReason = censusCounts + CensusClasses*CensusCounts*8
)

// maxCensusPages bounds the pages of all classes together, 4 PiB: no guest has more. A sum in
// bytes does not wrap.
const maxCensusPages = 1 << 40

// Encode writes the body into p, which has at least CensusReportSize bytes. A reason that is
// too long loses its end.
func (c *CensusReport) Encode(p []byte) {
	p = p[:CensusReportSize]
	clear(p)
	le := binary.LittleEndian
	copy(p, c.Digest[:])
	le.PutUint64(p[32:], c.Number)
	if c.Failed {
		le.PutUint32(p[40:], 1)
	}
	le.PutUint32(p[44:], c.TookUS)
	le.PutUint32(p[48:], c.RunMaxUS)
	le.PutUint32(p[52:], c.Runs)
	at := p[censusCounts:]
	for _, class := range c.Counts {
		for _, n := range class {
			le.PutUint64(at, n)
			at = at[8:]
		}
	}
	copy(p[censusReason:], c.Reason)
}

// DecodeCensusReport reads and checks the body of CENSUS. Its reason is safe to print.
func DecodeCensusReport(p []byte) (CensusReport, error) {
	if len(p) < CensusReportSize {
		return CensusReport{}, fmt.Errorf("decode census: %d bytes: %w", len(p), ErrMalformed)
	}
	le := binary.LittleEndian
	c := CensusReport{
		Digest:   Digest(p),
		Number:   le.Uint64(p[32:]),
		Failed:   le.Uint32(p[40:]) == 1,
		TookUS:   le.Uint32(p[44:]),
		RunMaxUS: le.Uint32(p[48:]),
		Runs:     le.Uint32(p[52:]),
		Reason:   Printable(p[censusReason:CensusReportSize]),
	}
	if le.Uint32(p[40:]) > 1 || le.Uint64(p[56:]) != 0 {
		return c, fmt.Errorf("decode census: state %d, or a reserved field is not 0: %w",
			le.Uint32(p[40:]), ErrMalformed)
	}
	at, sum := p[censusCounts:], uint64(0)
	for class := range c.Counts {
		for i := range c.Counts[class] {
			n := le.Uint64(at)
			at = at[8:]
			c.Counts[class][i] = n
			if n > maxCensusPages || n > c.Counts[class][CensusPages] || n != 0 && c.Failed {
				return c, fmt.Errorf("decode census: %d pages as count %d of class %d: %w",
					n, i, class, ErrMalformed)
			}
		}
		sum += c.Counts[class][CensusPages] // does not wrap: each is bounded
	}
	if sum > maxCensusPages {
		return c, fmt.Errorf("decode census: %d pages: %w", sum, ErrMalformed)
	}
	return c, nil
}
