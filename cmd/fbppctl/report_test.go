// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/cmd/fbppctl/qmp"
)

// Without QEMU a report has what fbppd knows. An earlier file stays.
func TestReportOfWhatFbppdKnows(t *testing.T) {
	path, output := mustServe(t), filepath.Join(t.TempDir(), "r")
	args := []string{"--control-path=" + path, "--json", "report", "--output=" + output}
	var out strings.Builder
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatal(err)
	}
	validate(t, mustSchema(t, "report"), out.String())
	if page := mustReadFile(t, output+".html"); !strings.Contains(page, "</html>") {
		t.Errorf("the page is %q", page)
	}
	before := mustReadFile(t, output+".json")
	if err := os.Remove(output + ".html"); err != nil {
		t.Fatal(err)
	}
	err := run(t.Context(), args, &out)
	if err == nil || !strings.Contains(err.Error(), "is there already") ||
		mustReadFile(t, output+".json") != before {
		t.Errorf("the second report: %v", err)
	}
}

func TestWrongReports(t *testing.T) {
	for name, options := range map[string]string{
		"two ways to QEMU":     "--qmp=/x --domain=vm1",
		"no rounds":            "--qmp=/x --rounds=0",
		"nothing to add to":    "--join=x.json",
		"no bandwidth":         "--qmp=/x --bandwidth=0",
		"no name of a machine": "--domain=" + strings.Repeat("x", 200),
	} {
		args := append([]string{"report", "--output=" + t.TempDir() + "/r"}, strings.Fields(options)...)
		if !strings.HasPrefix(options, "--domain") {
			args = append(args, "--control-path=/x")
		}
		err := run(t.Context(), args, &strings.Builder{})
		if !errors.As(err, new(cli.UsageError)) {
			t.Errorf("%s: got %v, want a usage error", name, err)
		}
	}
}

// A machine of libvirt's is asked by way of virsh.
func TestDomainIsAskedByVirsh(t *testing.T) {
	mustPrograms(t, map[string]string{"virsh": `#!/bin/sh
case "$*" in
*dumpxml*) echo "<kvm><dirty-ring state='on' size='4096'/></kvm>" ;;
*'qemu-monitor-command --domain=vm1 {"execute":"query-status"}') echo '{"return":{"status":"x"}}' ;;
*'{"arguments":{"path":"/y"},"execute":"qom-get"}') echo '{"error":{"desc":"no"}}' ;;
*) echo "error: $*" >&2; exit 1 ;;
esac
`})
	q, err := openDomain(t.Context(), virsh{}, "vm1")
	if err != nil || q.dirtyRing == nil || !*q.dirtyRing {
		t.Fatalf("reached %+v, %v", q, err)
	}
	var answer struct{ Status string }
	err = q.Execute(t.Context(), "query-status", nil, &answer)
	if err != nil || answer.Status != "x" {
		t.Errorf("got %+v, %v", answer, err)
	}
	err = q.Execute(t.Context(), "qom-get", map[string]any{"path": "/y"}, nil)
	if said := new(qmp.Error); !errors.As(err, &said) || said.Command != "qom-get" {
		t.Errorf("got %v, want QEMU's error", err)
	}
	if q.Execute(t.Context(), "stop", nil, nil) == nil {
		t.Error("virsh failed, and that is no error")
	}
}
