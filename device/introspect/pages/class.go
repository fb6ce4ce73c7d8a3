// SPDX-License-Identifier: Apache-2.0

// Package pages classifies pages by their struct page: what does the kernel use
// them for? It works on bytes of guest memory, which may have any value.
package pages

import "fmt"

// Class is what a page is used for.
type Class uint8

// The classes.
const (
	Unknown   Class = iota // not recognised, or free in a processor's own cache
	Free                   // on a free list of the buddy allocator
	Reserved               // the kernel's image, its memory map, firmware
	Kernel                 // other memory of the kernel
	Slab                   // small objects of the kernel
	PageTable              // page tables of processes
	Offline                // given back to the host, such as by a balloon
	Anonymous              // memory of processes, without a file
	KSM                    // merged anonymous memory
	File                   // cache of files that have a place on disk
	Shmem                  // files without a place on disk: tmpfs and shared memory
	Hugetlb                // huge pages of hugetlbfs, in use or not
	Classes                // the number of classes
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

// MarshalText implements encoding.TextMarshaler with the name.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. An unknown name is an error.
func (c *Class) UnmarshalText(p []byte) error {
	for class, name := range classNames {
		if name == string(p) {
			*c = Class(class)
			return nil
		}
	}
	return fmt.Errorf("no class of pages is called %q", p)
}

// Attr is a set of attributes of a page.
type Attr uint8

// The attributes. Only pages of processes and files have any.
const (
	Mapped    Attr = 1 << iota // page tables of processes refer to it
	Dirty                      // newer than its file or swap device
	Writeback                  // being written to its file or swap device
	SwapCache                  // also on a swap device, or about to be
	Clean                      // can be read again from its file, and is not mapped
	Active                     // used lately, as the kernel sees it

	Attrs = 1 << iota // the number of sets of attributes
)

// Page is a page's class and attributes.
type Page struct {
	Class Class
	Attr  Attr
}
