// SPDX-License-Identifier: Apache-2.0

// Package pageview carries a guest's view of its own pages to a test on the host. The guest
// leaves the view in its memory, where the test reads it. Sending it would change the pages
// that it describes.
//
// The guest cuts each file of /proc into pages that carry a token, the name of
// the file and a number. The host looks through the memory for the token.
package pageview

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
)

const (
	// PageSize is the size of a tagged page, in bytes.
	PageSize = 4096
	// TokenSize is the length of the token that a test chooses.
	TokenSize = 16

	nameAt, nameSize = TokenSize, 24
	numberAt         = nameAt + nameSize
	lengthAt         = numberAt + 4
	payloadAt        = lengthAt + 4
	// Payload is how many bytes of a file a page carries.
	Payload = PageSize - payloadAt
)

// Pages returns how many pages carry so many bytes.
func Pages(size int) int { return (size + Payload - 1) / Payload }

// Put writes content into pages of dst, which is as long as [Pages] asks for.
func Put(dst []byte, token [TokenSize]byte, name string, content []byte) {
	for number := 0; len(content) > 0; number++ {
		page := dst[number*PageSize:][:PageSize]
		n := copy(page[payloadAt:], content)
		content = content[n:]
		copy(page[nameAt:][:nameSize], name)
		binary.LittleEndian.PutUint32(page[numberAt:], uint32(number))
		binary.LittleEndian.PutUint32(page[lengthAt:], uint32(n))
		copy(page, token[:])
	}
}

// Collector puts files together again.
type Collector struct {
	token [TokenSize]byte
	parts map[string]map[uint32][]byte
}

// NewCollector returns a collector of the pages with a token.
func NewCollector(token [TokenSize]byte) *Collector {
	return &Collector{token: token, parts: make(map[string]map[uint32][]byte)}
}

// Add takes a page of the guest's memory. If the page has the token it keeps a copy of the
// payload.
func (c *Collector) Add(page []byte) {
	if len(page) < PageSize || !bytes.Equal(page[:TokenSize], c.token[:]) {
		return
	}
	name := string(bytes.TrimRight(page[nameAt:][:nameSize], "\x00"))
	n := binary.LittleEndian.Uint32(page[lengthAt:])
	if name == "" || n > Payload {
		return
	}
	if c.parts[name] == nil {
		c.parts[name] = make(map[uint32][]byte)
	}
	c.parts[name][binary.LittleEndian.Uint32(page[numberAt:])] = slices.Clone(page[payloadAt:][:n])
}

// File returns the content of a file. It is an error if a page of it was not added.
func (c *Collector) File(name string) ([]byte, error) {
	parts := c.parts[name]
	if len(parts) == 0 {
		return nil, fmt.Errorf("collect %s: no page of it was found", name)
	}
	var content []byte
	for number := range uint32(len(parts)) {
		part, ok := parts[number]
		if !ok {
			return nil, fmt.Errorf("collect %s: page %d of %d is missing", name, number, len(parts))
		}
		content = append(content, part...)
	}
	return content, nil
}
