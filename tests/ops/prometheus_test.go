// SPDX-License-Identifier: Apache-2.0

package ops

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/tests/debian"
	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/vhostuser/unixsock"
)

const (
	contrib       = "../../contrib"
	dashboardFile = contrib + "/grafana/fbpp.json"
)

// mustPrometheus returns the folder with Debian's prometheus and promtool, which it
// fetches into the cache without installing them: the package would start a service.
func mustPrometheus(t *testing.T) string {
	t.Helper()
	cache, err := guest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(cache, "prometheus", "usr", "bin")
	if _, err := os.Stat(filepath.Join(bin, "promtool")); err == nil {
		return bin
	}
	if err := fetch(t.Context(), filepath.Join(cache, "prometheus")); err != nil {
		t.Fatalf("the package prometheus of Debian is missing: %v", err)
	}
	return bin
}

// fetch unpacks Debian's package prometheus at path.
func fetch(ctx context.Context, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(filepath.Dir(path), ".prometheus-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	source, err := debian.OpenSource(ctx, scratch, "bookworm", "amd64")
	if err != nil {
		return err
	}
	if _, err := source.Run(ctx, "apt-get", "download", "prometheus"); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(scratch, "prometheus_*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("download prometheus: found %q (%v)", debs, err)
	}
	files := filepath.Join(scratch, "files")
	unpack := exec.CommandContext(ctx, "dpkg-deb", "-x", debs[0], files)
	if out, err := unpack.CombinedOutput(); err != nil {
		return fmt.Errorf("unpack %s: %w: %s", debs[0], err, out)
	}
	return os.Rename(files, path)
}

// promtool runs promtool in dir.
func promtool(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(mustPrometheus(t), "promtool"), args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %q: %v\n%s", args, err, out)
	}
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	dir := filepath.Join(contrib, "prometheus")
	promtool(t, dir, "check", "rules", "--lint=all", "--lint-fatal", "fbpp.rules.yml")
	promtool(t, dir, "check", "config", "prometheus.yml")
	promtool(t, dir, "test", "rules", "fbpp.test.yml")
}

// expressions are those of the panels of the dashboard.
func expressions(t *testing.T) (all []string) {
	t.Helper()
	d, err := loadDashboard(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all = append(all, target.Expr)
		}
	}
	if len(all) < 10 {
		t.Fatalf("the dashboard has %d expressions", len(all))
	}
	return all
}

// Each expression of the dashboard can be parsed.
func TestDashboardIsWellFormed(t *testing.T) {
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	for i, expr := range expressions(t) {
		rules = append(rules, rule{fmt.Sprintf("panel_%d", i), expr})
	}
	group := map[string]any{"name": "dashboard", "rules": rules}
	text, err := json.Marshal(map[string]any{"groups": []any{group}}) // JSON is YAML, too
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rules.yml"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, dir, "check", "rules", "rules.yml")
}

var (
	metric = regexp.MustCompile(`\bfbpp_[a-z_]+`)
	named  = regexp.MustCompile(`fqName: "([a-z_]+)"`)
)

// Alerts and dashboard name no metric that does not exist.
func TestMetricsThatAreAskedForExist(t *testing.T) {
	exist := map[string]bool{"fbpp_up": true, "fbpp_scrape_seconds": true}
	descs := make(chan *prometheus.Desc, 64)
	control.NewMetrics(nil).Describe(descs)
	close(descs)
	for d := range descs {
		exist[named.FindStringSubmatch(d.String())[1]] = true
	}
	rules, err := os.ReadFile(filepath.Join(contrib, "prometheus", "fbpp.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	asked := metric.FindAllString(strings.Join(expressions(t), "\n")+string(rules), -1)
	if len(asked) < 10 {
		t.Fatalf("only %q are asked for", asked)
	}
	for _, name := range asked {
		if !exist[name] {
			t.Errorf("no metric is called %s", name)
		}
	}
}

// mustPort returns a port of this machine that nobody listens at.
func mustPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// mustServe serves a device as fbppd@NAME.service does, until the test ends.
func mustServe(t *testing.T, dir, name string, dev control.Device) {
	t.Helper()
	path := filepath.Join(dir, name, "control.sock")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := unixsock.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- control.Serve(ctx, l, dev, zap.NewNop()) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// mustRun runs a program until the test ends.
func mustRun(t *testing.T, program string, args ...string) {
	t.Helper()
	var log strings.Builder
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", filepath.Base(program), log.String())
		}
	})
}

// mustScrape has Debian's Prometheus scrape an exporter of the machines in a folder, each
// second, until the test ends. It returns where that Prometheus answers.
func mustScrape(t *testing.T, host string) (web string) {
	t.Helper()
	prometheus := filepath.Join(mustPrometheus(t), "prometheus")
	dir := t.TempDir()
	fbppctl := filepath.Join(dir, "fbppctl")
	build := exec.Command("go", "build", "-o", fbppctl, "../../cmd/fbppctl")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	exporter, web := mustPort(t), mustPort(t)
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs:\n"+
		"  - {job_name: fbpp, static_configs: [{targets: ['%s']}]}\n", exporter)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, fbppctl, "--run-dir="+host, "metrics", "--listen="+exporter)
	mustRun(t, prometheus, "--config.file="+config, "--web.listen-address="+web,
		"--storage.tsdb.path="+filepath.Join(dir, "data"))
	for { // the timeout of go test bounds the loop
		resp, err := http.Get("http://" + web + "/-/ready")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return web
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Prometheus knows the machines by name.
func TestPrometheusScrapesAHost(t *testing.T) {
	host := t.TempDir()
	mustServe(t, host, "vm1", device.New(device.Options{}))
	mustServe(t, host, "vm2", device.New(device.Options{}))
	web := mustScrape(t, host)
	query := "http://" + web + "/api/v1/query?query=" +
		url.QueryEscape(`count(fbpp_up{vm=~"vm[12]"} == 1 and fbpp_enabled == 1)`)
	for { // the timeout of go test bounds the loop
		var answer struct {
			Data struct{ Result []struct{ Value [2]any } }
		}
		if resp, err := http.Get(query); err == nil {
			err = json.NewDecoder(resp.Body).Decode(&answer)
			resp.Body.Close()
			if err == nil && len(answer.Data.Result) > 0 && answer.Data.Result[0].Value[1] == "2" {
				return
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
}
