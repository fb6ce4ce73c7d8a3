// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/exec"
	"testing"

	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

// known are the rules that the storage daemons of QEMU 7.2 and 10.0 break in every
// run, with their faults.
var known = map[string]string{
	"VHU-ACK-2":  "SET_VRING_NUM takes any queue number and writes past its array: the process dies",
	"VHU-ACK-5":  "an unknown request is acknowledged as a success",
	"VHU-MQ-2":   "a queue that does not exist is acknowledged as a success",
	"VHU-MEM-2":  "a table whose descriptors do not match is acknowledged as a success",
	"VHU-MEM-10": "ADD_MEM_REG without a descriptor is acknowledged as a success",
	"VHU-MEM-12": "REM_MEM_REG of a region that is not there is acknowledged as a success",
	"VHU-RING-5": "a ring that was never enabled is processed",
	"VHU-NOTE-3": "a ring without a call descriptor stops at its first answer",
	"VHU-CFG-2":  "GET_CONFIG ignores the offset",
	"VHU-CFG-3":  "GET_CONFIG ignores the offset, and reads past the end",
	"VHU-REQ-2":  "SET_BACKEND_REQ_FD without a descriptor is acknowledged as a success",
	"VHU-POST-3": "the frontend's acknowledgement of memory slots, which has no descriptor," +
		" ends the connection",
}

// sometimes are the rules that they break in some runs, depending on timing. Most
// have one cause: GET_VRING_BASE does not wait for requests in flight. These are
// done later, when the guest may be gone and the log is no longer read. The first
// of them finds the call descriptor closed, which ends the connection.
var sometimes = map[string]string{
	"VHU-NOTE-7": "a request is done before SET_VRING_CALL, and finds no call descriptor",
	"VHU-MEM-3":  "a table of 255 regions is read past its end, which may kill the process",
	"VHU-STOP-3": "the base is ahead of the used index",
	"VHU-STOP-4": "the used ring and data are written after the reply",
	"VHU-STOP-5": "the connection is lost", "VHU-STOP-6": "the connection is lost",
	"VHU-STOP-7": "the connection is lost",
	"VHU-LOG-9":  "pages are marked after the reply", "VHU-EVT-4": "the connection is lost",
	"VHU-RING-13": "the connection is lost", "VHU-MEM-16": "the connection is lost",
}

// storageDaemon returns the command that serves a disk at the socket path.
func storageDaemon(t *testing.T, path string) string {
	t.Helper()
	program, err := exec.LookPath("qemu-storage-daemon")
	if err != nil {
		t.Skip("qemu-storage-daemon is not installed (Debian: qemu-system-common)")
	}
	return fmt.Sprintf("%s --blockdev driver=file,filename=%s,node-name=d --export "+
		"type=vhost-user-blk,id=e,node-name=d,writable=on,addr.type=unix,addr.path=%s",
		program, disk(t), path)
}

// TestStorageDaemon checks a backend of another project. The rules that it breaks
// are known. A new finding is more likely a fault of the suite than of the backend.
func TestStorageDaemon(t *testing.T) {
	t.Parallel()
	path, option := socket(t)
	status, found := conform(t, "blk", storageDaemon(t, path), option)
	if status != report.ExitBroken {
		t.Errorf("exit status %d", status)
	}
	for id, o := range found {
		switch {
		case o.Outcome == "error":
			t.Errorf("%s could not be checked: %s %q", id, o.Detail, o.Notes)
		case o.Outcome == "fail" && !o.Advice && known[id] == "" && sometimes[id] == "":
			t.Errorf("%s is a new finding: %s %q", id, o.Detail, o.Notes)
		case o.Outcome == "pass" && known[id] != "":
			t.Errorf("%s was kept; known was: %s", id, known[id])
		}
	}
}
