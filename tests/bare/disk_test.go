// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"context"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// badFrom is where a disk that is bad cannot be read any more.
const badFrom = 1 << 20

// disk is a folder on a file system of the test's own, whose files give an I/O error while it
// is bad. It is gone after the test.
type disk struct {
	dir string
	bad atomic.Bool
}

// mountDisk mounts one.
func mountDisk(t testing.TB) *disk {
	t.Helper()
	d := &disk{dir: t.TempDir()}
	files := &fs.LoopbackRoot{Path: t.TempDir()}
	root := &diskNode{&fs.LoopbackNode{RootData: files}, d}
	files.RootNode = root
	server, err := fs.Mount(d.dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMountStrict: true, Name: "fbpp-test"},
	})
	if err != nil {
		t.Fatalf("mount a file system of the test's own, which takes /dev/fuse: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
			_ = unix.Unmount(d.dir, unix.MNT_DETACH)
		}
	})
	return d
}

// diskNode is a file or folder of it.
type diskNode struct {
	*fs.LoopbackNode
	disk *disk
}

// WrapChild makes a node of the disk of each file in a folder.
func (n *diskNode) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &diskNode{ops.(*fs.LoopbackNode), n.disk}
}

// Open has each read come here, and none be served by the host's page cache.
func (n *diskNode) Open(
	ctx context.Context, flags uint32,
) (fs.FileHandle, uint32, syscall.Errno) {
	h, _, errno := n.LoopbackNode.Open(ctx, flags)
	return h, fuse.FOPEN_DIRECT_IO, errno
}

// Read is called for the node's open files.
func (n *diskNode) Read(
	ctx context.Context, h fs.FileHandle, buf []byte, offset int64,
) (fuse.ReadResult, syscall.Errno) {
	if n.disk.bad.Load() && offset+int64(len(buf)) > badFrom {
		return nil, syscall.EIO
	}
	return h.(fs.FileReader).Read(ctx, buf, offset)
}
