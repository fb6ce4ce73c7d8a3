// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"fmt"

	"libvirt.org/go/libvirtxml"
)

// MaxSize bounds the definitions that [Parse] reads, in bytes. Those of the largest
// machines have some 100 KiB.
const MaxSize = 4 << 20

var errTooLong = fmt.Errorf("read the machine's XML: it has more than %d bytes", MaxSize)

// Domain is the definition of a virtual machine. It is not safe for concurrent use.
type Domain struct {
	xml   libvirtxml.Domain
	slots slots // those of the root bus that are taken
	// metadata is the start tag of the metadata, as it was written.
	metadata string
}

// Parse reads a definition as virsh dumpxml prints it.
func Parse(text string) (*Domain, error) {
	if len(text) > MaxSize {
		return nil, errTooLong
	}
	before, err := flatten(text)
	if err != nil {
		return nil, fmt.Errorf("read the machine's XML: %w", err)
	}
	d := &Domain{slots: slotsOf(before), metadata: metadataTag(text)}
	if err := d.xml.Unmarshal(text); err != nil {
		return nil, fmt.Errorf("read the machine's XML: %w", err)
	}
	again, err := d.XML()
	if err != nil {
		return nil, err
	}
	after, err := flatten(again)
	if err != nil {
		return nil, fmt.Errorf("read the machine's XML again: %w", err)
	}
	if lost := firstLost(before, after); lost != "" {
		return nil, fmt.Errorf("this fbppctl does not know %s of the machine's XML, and would lose it:"+
			" edit the XML by hand (docs/libvirt.md)", lost)
	}
	return d, nil
}

// Name returns the machine's name.
func (d *Domain) Name() string { return d.xml.Name }

// XML returns the definition as text, for virsh define.
func (d *Domain) XML() (string, error) {
	text, err := d.xml.Marshal()
	if err != nil {
		return "", fmt.Errorf("write the machine's XML: %w", err)
	}
	return withMetadataTag(text, d.metadata) + "\n", nil
}
