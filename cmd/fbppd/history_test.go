// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/window/windowtest"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

// A confined fbppd cannot open files, but it can write the history that it opened
// before. The next fbppd continues the file, also after the last one was killed.
func TestHistoryOutlivesFBPPD(t *testing.T) {
	exe := mustBuild(t)
	path := filepath.Join(t.TempDir(), "history")
	const lives = 3
	for life := range lives {
		d := mustStart(t, exe, "--history-path="+path)
		fe := must(vhosttest.Dial(d.vhost))(t)
		if err := fe.Realize(vhosttest.Options{Extra: 1 << protocol.WindowProtocolFeature}); err != nil {
			t.Fatal(err)
		}
		outcomes := windowtest.Request(protocol.WindowFeatureOutcome)
		reply := must(fe.Ask(protocol.WindowRequest, outcomes))(t)
		w := windowtest.OpenReply(t, reply.Payload, reply.FDs)
		w.Tell(0, protocol.MigrationCompleted, 0, uint64(life)<<20)
		client := control.NewClient(d.ctl)
		for {
			kept := must(client.History(t.Context()))(t)
			if len(kept) == life+1 {
				if last := kept[life]; last.SkippedBytes != uint64(life)<<20 || last.Result != "completed" {
					t.Errorf("the last one is %+v", last)
				}
				break
			}
			time.Sleep(time.Millisecond) // the timeout of go test bounds the loop
		}
		// It is on disk a little later.
		for bytes.Count(must(os.ReadFile(path))(t), []byte("\n")) <= life {
			time.Sleep(time.Millisecond)
		}
		reply.Close()
		fe.Close()
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
	}
}
