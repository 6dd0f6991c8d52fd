package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.yaml.in/yaml/v3"

	"github.com/decree-tx/decree/cmd/internal/config"
	"github.com/decree-tx/decree/cmd/internal/daemon"
	"github.com/decree-tx/decree/cmd/internal/metrics"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// What is proven here: the dashboard and the alerts ask for what a node really counts,
// and nobody is woken by an alert that the operations guide does not explain.

const monitoring = "../../scripts/monitoring"

// rule is one of scripts/monitoring/alerts.yaml.
type rule struct {
	Alert, Expr string
	Annotations map[string]string
}

func readRules(t *testing.T) []rule {
	t.Helper()
	var file struct {
		Groups []struct{ Rules []rule }
	}
	if err := yaml.Unmarshal(readMonitoring(t, "alerts.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	var all []rule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("there are no alerts")
	}
	return all
}

func readMonitoring(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(monitoring, name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// expressions are all that the dashboard asks for: each field named expr, and the query
// of a variable.
func expressions(t *testing.T) (all []string) {
	t.Helper()
	var dashboard any
	if err := json.Unmarshal(readMonitoring(t, "dashboard.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, field := range v {
				if text, ok := field.(string); ok && (name == "expr" || name == "query") {
					all = append(all, text)
				}
				walk(field)
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(dashboard)
	return all
}

var metricName = regexp.MustCompile(`\b(decree|raft|go|process)_[a-zA-Z0-9_]+`)

func TestMonitoringAsksForWhatIsCounted(t *testing.T) {
	counted := scrapeNode(t)
	asked := map[string]bool{}
	for _, r := range readRules(t) {
		for _, name := range metricName.FindAllString(r.Expr, -1) {
			asked[name] = true
		}
	}
	for _, expression := range expressions(t) {
		for _, name := range metricName.FindAllString(expression, -1) {
			asked[name] = true
		}
	}
	if len(asked) < 30 {
		t.Errorf("only %d metrics are asked for", len(asked))
	}
	for name := range asked {
		if name == "decree_certificate_expiry_timestamp_seconds" {
			continue // this node has none; cmd/internal/metrics tests it
		}
		if !regexp.MustCompile(`(?m)^` + name + `[ {]`).MatchString(counted) {
			t.Errorf("%s is asked for, and no node counts it", name)
		}
	}
}

func TestAlertsAreExplainedAndTested(t *testing.T) {
	guide, err := os.ReadFile("OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	var cases struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string
				ExpAlerts []any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal(readMonitoring(t, "alerts_test.yaml"), &cases); err != nil {
		t.Fatal(err)
	}
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, c := range cases.Tests {
		for _, a := range c.AlertRuleTest {
			fires[a.Alertname] = fires[a.Alertname] || len(a.ExpAlerts) > 0
			quiet[a.Alertname] = quiet[a.Alertname] || len(a.ExpAlerts) == 0
		}
	}
	var named []string
	for _, r := range readRules(t) {
		named = append(named, r.Alert)
		if !strings.Contains(string(guide), "\n### "+r.Alert+"\n") {
			t.Errorf("OPERATIONS.md does not explain %s", r.Alert)
		}
		if !strings.HasSuffix(r.Annotations["runbook_url"], "/cmd/decree/OPERATIONS.md#"+strings.ToLower(r.Alert)) {
			t.Errorf("%s leads to %q", r.Alert, r.Annotations["runbook_url"])
		}
		if !fires[r.Alert] || !quiet[r.Alert] {
			t.Errorf("alerts_test.yaml does not show what fires %s, and what does not", r.Alert)
		}
	}
	for _, section := range regexp.MustCompile(`(?m)^### (Decree\w+)$`).FindAllStringSubmatch(string(guide), -1) {
		if !slices.Contains(named, section[1]) {
			t.Errorf("OPERATIONS.md explains %s, which is no alert", section[1])
		}
	}
}

// scrapeNode runs a node as decree server does, with one transaction, and reads its
// metrics.
func scrapeNode(t *testing.T) string {
	t.Helper()
	ports := make([]string, 3)
	for i := range ports {
		ports[i] = unusedAddress(t)
	}
	cfg := config.Default()
	cfg.NodeID, cfg.DataDir, cfg.Peers = "n1", filepath.Join(t.TempDir(), "n1"), config.Peers{{ID: "n1", Addr: ports[0]}}
	cfg.RaftAddr, cfg.GRPCAddr, cfg.HTTPAddr, cfg.OperatorAddr = ports[0], ports[1], "", ports[2]
	counts := metrics.New(metricsBuild())
	if err := counts.ObserveRaft(); err != nil {
		t.Fatal(err)
	}
	d, err := daemon.Open(t.Context(), cfg, daemon.Options{
		Drivers: drivers(), Logger: hclog.NewNullLogger(), Metrics: counts, Exit: func(err error) { panic(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer runDaemon(t, d)()
	c, err := client.New(client.Config{Endpoints: []string{cfg.GRPCAddr}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.PutParticipant(t.Context(), &decreev1.Participant{Name: "dice", Driver: "sim"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Submit(t.Context(), client.Transaction{Branches: []client.Branch{client.JSON("dice", struct{}{})}}); err != nil {
		t.Fatal(err)
	}
	answer, err := http.Get("http://" + ports[2] + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", answer.Status, err)
	}
	return string(body)
}

// runDaemon runs a node until the function that it returns is called.
func runDaemon(t *testing.T, d *daemon.Daemon) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
