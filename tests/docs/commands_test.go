// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// operators are the documents with commands that operators type.
var operators = []string{
	"README.md", "SECURITY.md", "docs/operating.md", "docs/libvirt.md", "docs/field.md",
	"docs/programs.md", "docs/benchmarks.md", "docs/conformance.md", "docs/reliability.md",
}

// A line of an indented block, and a command within a sentence.
var (
	fenced    = regexp.MustCompile("(?s)```.*?```") // settings and diagrams
	blockLine = regexp.MustCompile(`(?m)^ {4,7}(\S.*)$`)
	inline    = regexp.MustCompile("`((?:make|go test|fbppd|fbpp-agent|fbpp-conform|virsh|" +
		"systemctl|journalctl|setfacl|sysctl|modinfo|qom-set|(?:contrib/packaging|" +
		"qemu-patches)/qemu.sh) [^`]*)`")
	remark = regexp.MustCompile(`(^|\s+)#.*$`)
	option = regexp.MustCompile(`--([a-z][a-z-]*)`)
)

// proof says how a command is tried: words that a file has, as plain makes them.
type proof struct{ command, file, words string }

// proofs are tried in this order. A command matches whole.
var proofs = []proof{
	// The arguments of each are parsed as fbppctl does, by TestCommandsOfTheDocumentsExist.
	{`fbppctl .*`, "cmd/fbppctl/docs_test.go", "TestCommandsOfTheDocumentsExist"},
	{`systemctl edit fbppd@`, "tests/libvirt/host_test.go", "fbppd@.service.d/override.conf"},
	{`systemctl restart libvirtd`, "tests/libvirt/enable_test.go", "kill $(pidof libvirtd)"},
	{`(systemctl|journalctl|sysctl|modinfo|setfacl|curl) .*`, "tests/systemd/host_test.go", "$0"},
	{`apt-get install \./build/packages/.*`, "tests/systemd/image.sh", "apt-get install"},
	{`install -m 755 "\$\(qemu-patches/qemu.sh --operator path\)" .*`,
		"qemu-patches/qemu.sh", "path)"},
	{`install -d -m \d+ /run/fbpp.*`, "tests/libvirt/systemctl.sh", "install -d -m 755 /run/fbpp"},
	{`qemu-system-x86_64 ….*`, "tests/e2e/ordinary_test.go", "func TestMigrationWithoutHints"},
	{`virsh (migrate --live --persistent --undefinesource) .*`,
		"tests/libvirt/migration_test.go", "virsh $1"},
	{`virsh qemu-monitor-command.*`, "tests/libvirt/migration_test.go", "qemu-monitor-command"},
	{`virsh (migrate-postcopy|domjobabort|managedsave|save|restore|start).*`,
		"tests/libvirt/migration_test.go", "$1"},
	{`virsh define`, "tests/libvirt/machine_test.go", "define"},
	// Named only to say that they were not tried, or what they would do.
	{`virsh snapshot-create-as --live`, "docs/libvirt.md", "We have not"},
	{`qom-set /machine/peripheral/fbpp0 hints false`, "tests/libvirt/migration_test.go",
		"qom-set /machine/peripheral/fbpp0 hints"},
	{`qom-set … hints true`, "tests/libvirt/migration_test.go", "hints"},
	{`\(qemu\) info migrate`, "tests/vm/migrate.go", "query-migrate"},
	{`migrate_set_capability (mapped-ram|postcopy-ram) on`, "tests/bare/snapshot_test.go", "$1"},
	{`migrate_set_parameter (max-postcopy-bandwidth) .*`, "tests/bare/snapshot_test.go", "$1"},
	{`(migrate|migrate_incoming) file:.*`, "tests/bare/snapshot_test.go", "file:"},
	{`contrib/packaging/qemu.sh (--continue) .*`, "contrib/packaging/qemu.sh", "$1"},
	{`qemu-patches/qemu.sh (--operator )?(tree|path|build).*`, "qemu-patches/qemu.sh", "$2"},
	{`go run \./tests/bench --(redraw) docs`, "tests/bench/main.go", "$1"},
	{`go test \./(tests/\w+) -run (\w+)`, "$1", "func $2"},
	{`go test(?: -run \S+ -bench (\w+|\.))? \./([\w/-]+)`, "$2", "func "},
	{`go test`, "Makefile", "go test"},
}

// settings are lines of blocks that are no commands: options of QEMU, files.
var settings = regexp.MustCompile(`^(-|\{|include <|/usr/\S+ rmix,|FBPPD_OPTIONS=|\(qemu\)$|\[--)`)

// Each command of the documents for operators is one that a test runs, or that make has.
func TestEachCommandOfTheDocumentsIsTried(t *testing.T) {
	n := 0
	for _, name := range operators {
		text := fenced.ReplaceAllString(read(t, name), "")
		var lines []string
		for _, m := range blockLine.FindAllStringSubmatch(text, -1) {
			lines = append(lines, m[1])
		}
		for _, m := range inline.FindAllStringSubmatch(strings.ReplaceAll(text, "\n", " "), -1) {
			lines = append(lines, m[1])
		}
		for _, line := range lines {
			line = strings.TrimSpace(remark.ReplaceAllString(line, ""))
			if line == "" || settings.MatchString(line) {
				continue
			}
			n++
			if why := untried(t, strings.TrimSuffix(line, " &")); why != "" {
				t.Errorf("%s: %s: %s", name, line, why)
			}
		}
	}
	if n < 80 {
		t.Errorf("the documents have %d commands: are they written otherwise now?", n)
	}
}

// untried says why a command counts as not tried, or "".
func untried(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	switch program := words[0]; program {
	case "make":
		return notMade(t, words[1:])
	case "fbppd", "fbpp-agent", "fbpp-conform":
		return unknownOption(t, program, line)
	}
	for _, p := range proofs {
		m := regexp.MustCompile("^(?:" + p.command + ")$").FindStringSubmatchIndex(line)
		if m == nil {
			continue
		}
		expand := func(s string) string {
			return string(regexp.MustCompile("^(?:"+p.command+")$").ExpandString(nil, s, line, m))
		}
		file, want := expand(p.file), expand(p.words)
		if !strings.Contains(plain(read(t, file)), plain(want)) {
			return file + " has no " + want
		}
		return ""
	}
	return "this test does not know how it is tried"
}

// notMade returns what make has no target for.
func notMade(t *testing.T, words []string) string {
	t.Helper()
	for _, word := range words {
		if strings.ContainsAny(word, `="'`) || strings.HasPrefix(word, "-") {
			return "" // a variable, and what follows is its value
		}
		if !strings.Contains(read(t, "Makefile"), "\n"+word+":") {
			return "make has no target " + word
		}
	}
	return ""
}

// unknownOption returns an option that a program does not have.
func unknownOption(t *testing.T, program, line string) string {
	t.Helper()
	for _, m := range option.FindAllStringSubmatch(line, -1) {
		if m[1] != "version" && m[1] != "help" && m[1] != "print-capabilities" &&
			!strings.Contains(read(t, "cmd/"+program), `"`+m[1]+`"`) {
			return "it has no option --" + m[1]
		}
	}
	return ""
}

// plain makes the words of a command of those of a Go slice.
func plain(s string) string {
	return strings.Join(strings.Fields(strings.NewReplacer(`"`, "", ",", " ").Replace(s)), " ")
}

// read returns a file of the project, or all Go files of a folder.
func read(t *testing.T, path string) string {
	t.Helper()
	files := []string{filepath.Join(root, path)}
	if info, err := os.Stat(files[0]); err != nil {
		t.Fatal(err)
	} else if info.IsDir() {
		if files, err = filepath.Glob(filepath.Join(root, path, "*.go")); err != nil {
			t.Fatal(err)
		}
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}
