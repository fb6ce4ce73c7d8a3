// SPDX-License-Identifier: Apache-2.0

// Command guestview runs in a test guest. It makes pages of the kinds that the test names.
// On request it puts the kernel's own view of all pages into its memory, where the test on
// the host finds it: see package pageview.
//
//	guestview TOKEN [KIND...]
//
// TOKEN is in hexadecimal digits. It answers each line of its input with one
// line: "load" makes the pages, "view" takes the view.
package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/tests/introspect/pageview"
)

func main() {
	// A garbage collection would change memory between the view and the pause.
	debug.SetGCPercent(-1)
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "guestview:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("no token was given")
	}
	var token [pageview.TokenSize]byte
	if n, err := hex.Decode(token[:], []byte(args[0])); err != nil || n != len(token) {
		return fmt.Errorf("token %q: %d bytes, %v", args[0], n, err)
	}
	var v *view
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		switch in.Text() {
		case "load":
			fmt.Println(strings.Join(load(args[1:]), "; "))
		case "view":
			if v == nil {
				var err error
				if v, err = prepare(token); err != nil {
					return err
				}
			}
			if err := v.take(); err != nil {
				return err
			}
			fmt.Println("taken")
		default:
			return fmt.Errorf("unknown order %q", in.Text())
		}
	}
	return in.Err()
}

// The files of a view, in the order in which they are read. The flags are read
// twice: a page that changed meanwhile was not quiet.
var files = []struct{ name, path string }{
	{"lru_gen", debugfs + "/lru_gen"},
	{"kpageflags", "/proc/kpageflags"},
	{"kpagecount", "/proc/kpagecount"},
	{"zoneinfo", "/proc/zoneinfo"},
	{"buddyinfo", "/proc/buddyinfo"},
	{"kpageflags2", "/proc/kpageflags"},
}

const debugfs = "/sys/kernel/debug"

// maxText bounds the files that are text.
const maxText = 256 << 10

// view holds all the memory that taking one needs.
type view struct {
	token   [pageview.TokenSize]byte
	fds     []int
	staging []byte
	pages   [][]byte // by file
}

// prepare allocates and writes all memory, so that taking the view allocates none.
func prepare(token [pageview.TokenSize]byte) (*view, error) {
	size, err := tableSize()
	if err != nil {
		return nil, err
	}
	if err := unix.Mount("debugfs", debugfs, "debugfs", 0, ""); err != nil && err != unix.EBUSY {
		return nil, fmt.Errorf("mount debugfs: %w", err)
	}
	v := &view{token: token}
	if v.staging, err = touched(max(size, maxText)); err != nil {
		return nil, err
	}
	for _, f := range files {
		fd, err := unix.Open(f.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", f.path, err)
		}
		pages, err := touched(pageview.Pages(len(v.staging)) * pageview.PageSize)
		if err != nil {
			return nil, err
		}
		v.fds, v.pages = append(v.fds, fd), append(v.pages, pages)
	}
	return v, nil
}

// take reads the files.
func (v *view) take() error {
	for i, f := range files {
		n := 0
		for n < len(v.staging) {
			m, err := unix.Pread(v.fds[i], v.staging[n:], int64(n))
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return fmt.Errorf("read %s: %w", f.path, err)
			}
			if m == 0 {
				break
			}
			n += m
		}
		pageview.Put(v.pages[i], v.token, f.name, v.staging[:n])
	}
	return nil
}

// tableSize returns the size of /proc/kpageflags in bytes: eight for each page
// up to the highest address of memory.
func tableSize() (int, error) {
	iomem, err := os.ReadFile("/proc/iomem")
	if err != nil {
		return 0, err
	}
	var end uint64
	for line := range strings.Lines(string(iomem)) {
		where, what, _ := strings.Cut(strings.TrimSpace(line), " : ")
		var first, last uint64
		if _, err := fmt.Sscanf(where, "%x-%x", &first, &last); err == nil && what == "System RAM" {
			end = max(end, last+1)
		}
	}
	if end <= 1 {
		return 0, fmt.Errorf("find the end of memory: /proc/iomem names none")
	}
	const section = 128 << 20 // the file ends at the end of a memory section
	return int((end+section-1)/section*section/pageview.PageSize) * 8, nil
}

// touched returns memory whose pages are allocated and locked.
func touched(size int) ([]byte, error) {
	size = (size + pageview.PageSize - 1) / pageview.PageSize * pageview.PageSize
	mem, err := anonymous(size)
	if err != nil {
		return nil, err
	}
	return mem, unix.Mlock(mem)
}

// anonymous returns memory of small pages, touched.
func anonymous(size int) ([]byte, error) {
	mem, err := unix.Mmap(
		-1,
		0,
		size,
		unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS,
	)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	_ = unix.Madvise(mem, unix.MADV_NOHUGEPAGE) // a kernel may have none
	touch(mem, 1)
	return mem, nil
}

// touch writes to each page.
func touch(mem []byte, value byte) {
	for at := 0; at < len(mem); at += pageview.PageSize {
		mem[at] = value
	}
}
