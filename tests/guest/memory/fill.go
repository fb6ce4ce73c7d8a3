// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"

	"golang.org/x/sys/unix"
)

// Block is memory in which each page has different, incompressible content.
type Block struct{ mem []byte }

// templateSize is the length of the random bytes from which pages are copied.
const templateSize = 4 * PageSize

// Fill maps the given number of bytes, and writes each page in this many goroutines.
// The caller frees the Block.
func Fill(bytes int64, workers int) (*Block, error) {
	mem, err := mapPrivate(int(bytes))
	if err != nil {
		return nil, err
	}
	b := &Block{mem: mem}
	b.write(workers)
	return b, nil
}

// mapPrivate maps memory of this process alone.
func mapPrivate(bytes int) ([]byte, error) {
	const prot = unix.PROT_READ | unix.PROT_WRITE
	mem, err := unix.Mmap(-1, 0, bytes, prot, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", bytes, err)
	}
	return mem, nil
}

// write writes every page.
func (b *Block) write(workers int) {
	mem := b.mem
	template := make([]byte, templateSize+PageSize)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(template) // never fails
	pages := len(mem) / PageSize
	share := (pages + workers - 1) / workers
	var wait sync.WaitGroup
	for first := 0; first < pages; first += share {
		wait.Go(func() {
			for i := first; i < min(first+share, pages); i++ {
				page := mem[i*PageSize : (i+1)*PageSize]
				// The offset of the copy and the page's number make each page
				// different, and a copy is fast.
				copy(page, template[i*8%templateSize:])
				binary.LittleEndian.PutUint64(page, uint64(i)|1<<63)
			}
		})
	}
	wait.Wait()
}

// Bytes returns the memory. It is valid until Free.
func (b *Block) Bytes() []byte { return b.mem }

// Free gives the memory back to the kernel.
func (b *Block) Free() error {
	mem := b.mem
	b.mem = nil
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("unmap: %w", err)
	}
	return nil
}
