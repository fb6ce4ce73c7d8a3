// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/fbpp-project/fbpp/cmd/fbppctl/report"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// What names this host and VM, and must be in no report.
const (
	secretHost = "daffodil-3"
	secretName = "tulip-bulb-7"
	secretUUID = "f3a1c9d2-5b7e-4c11-9a66-0d2c4e8b7a90"
)

// fbppctl report measures a guest that stays, whose balloon has free-page-hint or not. It is
// sound afterwards, and its next migration has hints.
func TestReportMeasuresAGuestThatStays(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "orchid.sock")
	m := boot(t, setup{
		options: []string{"-name", "guest=" + secretName, "-uuid", secretUUID,
			"-qmp", "unix:" + socket + ",server=on,wait=off"},
		devices: []string{"virtio-balloon-pci,free-page-hint=on,iothread=hinting"},
		eachSide: func(c *vm.Config) {
			c.Options = append([]string{"-object", "iothread,id=hinting"}, c.Options...)
		},
		modules: []string{"virtio_balloon"},
	})
	m.capability("return-path", true)
	if _, err := m.vm.Fill(m.ctx, 128); err != nil { // and free it
		t.Fatal(err)
	}
	before := m.parameters()
	m.integrity("pause") // so that all migrations have the same to send
	r := m.report(socket)
	m.integrity("resume")
	if after := m.parameters(); after != before {
		t.Errorf("the settings of migration are %v, and were %v", after, before)
	}
	m.requireSound()
	if len(r.Measured) != 2 {
		t.Fatalf("%d migrations were measured", len(r.Measured))
	}
	stock, with := r.Measured[0], r.Measured[1]
	if stock.Method != report.FreePageHint || stock.Result != "completed" ||
		stock.Hints != protocol.HintDisabled.String() || stock.SkippedBytes != 0 {
		t.Errorf("without hints: %+v", stock)
	}
	if with.Method != report.Both || with.Result != "completed" || with.Hints != "ok" ||
		with.SkippedBytes < 64<<20 || with.TransferredBytes >= stock.TransferredBytes {
		t.Errorf("with hints: %+v, and without: %+v", with, stock)
	}
	if r.VM.MemoryBytes != uint64(m.config.MemoryMiB)<<20 || !r.VM.FreePageHint || r.VM.CPUs != 2 ||
		len(r.VM.Memory) != 1 || r.VM.Memory[0].Type != "memfd" || !r.VM.Memory[0].Shared ||
		r.QEMU.Accelerator != string(m.config.Accel) || r.QEMU.Series == "" {
		t.Errorf("the VM is %+v, its QEMU %+v", r.VM, r.QEMU)
	}
	m.capability("return-path", false)
	requireHints(t, m.migrate(), "ok")
	m.requireSound()
}

// report has fbppctl make a report of one round, and checks it.
func (m *machine) report(socket string) (r report.Report) {
	m.t.Helper()
	output := filepath.Join(m.t.TempDir(), "rose")
	said, err := exec.CommandContext(m.ctx, "unshare", "--uts", "sh", "-ec",
		`hostname "$0"; exec "$@"`, secretHost, parts.FBPPCtl,
		"--control-path="+m.backend.ControlPath, "report", "--qmp="+socket, "--rounds=1",
		"--output="+output).CombinedOutput()
	if err != nil {
		m.t.Fatalf("fbppctl report: %v\n%s", err, said)
	}
	m.t.Logf("%s", said)
	for _, file := range []string{output + ".json", output + ".html"} {
		text, err := os.ReadFile(file)
		if err != nil {
			m.t.Fatal(err)
		}
		for _, word := range []string{secretHost, secretName, secretUUID, "/tmp", "orchid", "127.0.0.1",
			m.backend.ControlPath, output} {
			if strings.Contains(string(text), word) {
				m.t.Errorf("%s has %q in it", file, word)
			}
		}
	}
	text, err := os.ReadFile(output + ".json")
	if err != nil {
		m.t.Fatal(err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		m.t.Fatal(err)
	}
	schema, err := jsonschema.NewCompiler().Compile(
		filepath.Join(parts.Root, "docs", "schema", "report.json"))
	if err != nil {
		m.t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	if err == nil {
		err = schema.Validate(value)
	}
	if err != nil {
		m.t.Errorf("the report is not as documented: %v", err)
	}
	return r
}

// parameters returns the settings of migration that a report changes.
func (m *machine) parameters() (s struct {
	Bandwidth  int64  `json:"max-bandwidth"`
	TLS        string `json:"tls-creds"`
	ReturnPath bool
	Hints      bool
}) {
	m.t.Helper()
	if err := m.vm.Execute(m.ctx, "query-migrate-parameters", nil, &s); err != nil {
		m.t.Fatal(err)
	}
	var all []struct {
		Capability string
		State      bool
	}
	if err := m.vm.Execute(m.ctx, "query-migrate-capabilities", nil, &all); err != nil {
		m.t.Fatal(err)
	}
	for _, c := range all {
		s.ReturnPath = s.ReturnPath || c.Capability == "return-path" && c.State
	}
	if err := m.vm.Device(m.ctx, "hints", &s.Hints); err != nil {
		m.t.Fatal(err)
	}
	return s
}
