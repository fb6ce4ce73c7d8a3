// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
)

// qtest is a connection over which a test accesses memory and I/O ports, as a guest's
// processor would.
type qtest struct {
	t     testing.TB
	conn  net.Conn
	lines *bufio.Scanner
}

func newQTest(t testing.TB, conn net.Conn) *qtest {
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, 4<<20)
	return &qtest{t: t, conn: conn, lines: lines}
}

// do sends a command and returns the part of its answer that follows OK.
func (q *qtest) do(format string, args ...any) string {
	q.t.Helper()
	command := fmt.Sprintf(format, args...)
	if _, err := fmt.Fprintln(q.conn, command); err != nil {
		q.t.Fatalf("qtest %.40q: %v", command, err)
	}
	if !q.lines.Scan() {
		q.t.Fatalf("qtest %.40q: QEMU is gone: %v", command, q.lines.Err())
	}
	answer, ok := strings.CutPrefix(q.lines.Text(), "OK")
	if !ok {
		q.t.Fatalf("qtest %.40q: %s", command, q.lines.Text())
	}
	return strings.TrimSpace(answer)
}

// number sends a command whose answer is a number.
func (q *qtest) number(format string, args ...any) uint64 {
	q.t.Helper()
	var n uint64
	if _, err := fmt.Sscanf(q.do(format, args...), "%v", &n); err != nil {
		q.t.Fatal(err)
	}
	return n
}

// fill sets size bytes of memory to b.
func (q *qtest) fill(addr, size uint64, b byte) {
	q.t.Helper()
	q.do("memset %#x %#x %#x", addr, size, b)
}

// write writes to memory.
func (q *qtest) write(addr uint64, p []byte) {
	q.t.Helper()
	q.do("write %#x %#x 0x%x", addr, len(p), p)
}
