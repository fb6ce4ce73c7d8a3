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

// dyingSocket names the socket of the process that TestMain makes a backend.
const dyingSocket = "FBPP_TEST_DYING_BACKEND"

func TestMain(m *testing.M) {
	if path := os.Getenv(dyingSocket); path != "" {
		serveUntilAFault(path)
	}
	os.Exit(m.Run())
}

// serveUntilAFault is a backend that dies some time after a frontend has got
// something wrong: longer than the suite waits for a death.
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

// A death that is noticed by the next connection alone is the check's that
// caused it, though the backend was started again by then.
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
