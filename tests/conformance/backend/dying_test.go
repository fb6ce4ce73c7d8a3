// SPDX-License-Identifier: Apache-2.0

package backend_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/tests/conformance/backend"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// dyingSocket is an environment variable with the path of a socket. With it, TestMain
// serves a backend there instead of running the tests.
const dyingSocket = "FBPP_TEST_DYING_BACKEND"

func TestMain(m *testing.M) {
	if path := os.Getenv(dyingSocket); path != "" {
		serveUntilAFault(path)
	}
	os.Exit(m.Run())
}

// serveUntilAFault serves a backend that dies some time after a frontend's error. This
// time is longer than the suite waits for a backend to die.
func serveUntilAFault(path string) {
	e := newEcho()
	e.Disconnected = func(_ *vhostuser.Backend, err error) {
		if err != nil {
			time.Sleep(200 * time.Millisecond)
			os.Exit(3)
		}
	}
	l, err := vhostuser.Listen(path)
	if err != nil {
		os.Exit(4)
	}
	srv, err := vhostuser.NewServer(&e.Device, zap.NewNop())
	if err != nil {
		os.Exit(4)
	}
	_ = srv.Serve(context.Background(), l)
	os.Exit(4)
}

// A backend dies because of one check, but only the next connection notices it. The check
// that caused it has failed, although the backend was started again since.
func TestBackendThatDiesLate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dying.sock")
	c := backend.Config{
		SocketPath: path,
		Command:    []string{"env", dyingSocket + "=" + path, os.Args[0]},
		Profile:    backend.Echo(),
	}
	found := results(t, c, "VHU-DEAD-1", "VHU-DEAD-3")
	r := found["VHU-DEAD-1"]
	if r.Outcome != report.Fail || !strings.Contains(r.Detail, "exit status 3") {
		t.Errorf("a death: %v %s", r.Outcome, r.Detail)
	}
	if r := found["VHU-DEAD-3"]; r.Outcome != report.Pass {
		t.Errorf("the check after it: %v %s", r.Outcome, r.Detail)
	}
}
