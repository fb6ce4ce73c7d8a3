// SPDX-License-Identifier: Apache-2.0

// Package pages tells what a kernel uses a page for, by its struct page. It
// works on bytes of the guest's memory: they may be anything.
package pages

import "fmt"

// Class is what a page is used for.
type Class uint8

// The classes.
const (
	Unknown   Class = iota // not recognised, or in a cache of free pages per CPU
	Free                   // on a free list of the buddy allocator
	Reserved               // the kernel's image, its memory map, firmware
	Kernel                 // in use by the kernel, for what is not told
	Slab                   // the kernel's small objects
	PageTable              // of processes
	Offline                // given away, such as to a balloon
	Anonymous              // memory of processes, without a file
	KSM                    // merged anonymous memory
	File                   // cache of files that have a place on disk
	Shmem                  // cache of files that have none: tmpfs and shared memory
	Hugetlb                // huge pages set aside, used or not
	Classes                // how many there are
)

var classNames = [Classes]string{
	"unknown", "free", "reserved", "kernel", "slab", "page-table", "offline", "anonymous", "ksm",
	"file",
	"shmem", "hugetlb",
}

// String returns the name of the class.
func (c Class) String() string {
	if c < Classes {
		return classNames[c]
	}
	return "invalid"
}

// MarshalText gives the name, for JSON.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText takes a name.
func (c *Class) UnmarshalText(p []byte) error {
	for class, name := range classNames {
		if name == string(p) {
			*c = Class(class)
			return nil
		}
	}
	return fmt.Errorf("no class of pages is called %q", p)
}

// Attr are what is known of a page beside its class.
type Attr uint8

// The attributes. They concern the classes of processes and files.
const (
	Mapped    Attr = 1 << iota // by page tables of processes
	Dirty                      // newer than its file or swap device
	Writeback                  // being written
	SwapCache                  // also on a swap device, or about to be
	Clean                      // can be read again from its file, and nobody uses it now

	Attrs = 1 << iota // how many sets of attributes there are
)

// Page is a page's class and attributes.
type Page struct {
	Class Class
	Attr  Attr
}
