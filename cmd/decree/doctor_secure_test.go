package main

import (
	"path/filepath"
	"testing"
)

// TestDoctorLooksAtCertificates gives a node certificates that are wrong, one way each,
// and then good ones, with which it greets a peer by mutual TLS.
func TestDoctorLooksAtCertificates(t *testing.T) {
	dir, foreign := filepath.Join(t.TempDir(), "certs"), filepath.Join(t.TempDir(), "foreign")
	for _, args := range [][]string{
		{"cert", "ca", "--dir", dir}, {"cert", "ca", "--dir", foreign},
		{"cert", "issue", "node", "n1", "n2", "far=far.example", "--dir", dir},
		{"cert", "issue", "client", "web", "--dir", dir},
		{"cert", "issue", "node", "brief", "--dir", dir, "--lifetime", "48h"},
		{"cert", "issue", "node", "past", "--dir", dir, "--lifetime", "1ns"},
		{"cert", "issue", "operator", "ada", "--dir", dir},
	} {
		if made := run(t, nil, "", args...); made.exit != exitOK {
			t.Fatalf("%v: %s", args, made.stderr)
		}
	}
	node := newLone(t)
	with := func(certificate, key, ca string, more ...string) []string {
		return node.doctorArgs(append([]string{
			"--tls-cert", filepath.Join(dir, certificate), "--tls-key", filepath.Join(dir, key), "--tls-ca", ca,
		}, more...)...)
	}
	ca := filepath.Join(dir, "ca.pem")
	path := func(name string) string { return "certificate " + filepath.Join(dir, name) }
	id := func(id string) []string { return []string{"--node-id", id, "--peers", id + "=" + node.raft} }
	tests := []struct {
		name, what, result, in string
		args                   []string
	}{
		{"another's key", path("node-n1.pem"), "fail", "does not match", with("node-n1.pem", "node-n2.key", ca)},
		{"no such file", path("nowhere.pem"), "fail", "no such file", with("nowhere.pem", "node-n1.key", ca)},
		{"another authority", path("node-n1.pem"), "fail", "unknown authority", with("node-n1.pem", "node-n1.key", filepath.Join(foreign, "ca.pem"))},
		{"no authority", "certificate " + filepath.Join(dir, "ca.key"), "fail", "holds no certificate", with("node-n1.pem", "node-n1.key", filepath.Join(dir, "ca.key"))},
		{"a client's", "certificate holder", "fail", "only a node's certificate", with("client-web.pem", "client-web.key", ca)},
		{"another node's", "certificate holder", "warn", "is node/n2, this node is n1", with("node-n2.pem", "node-n2.key", ca)},
		{"of other hosts", "certificate hosts", "fail", "others dial", with("node-far.pem", "node-far.key", ca, id("far")...)},
		{"soon over", path("node-brief.pem"), "warn", "renew it", with("node-brief.pem", "node-brief.key", ca, id("brief")...)},
		{"over", path("node-past.pem"), "fail", "expired at", with("node-past.pem", "node-past.key", ca, id("past")...)},
		{"good", path("node-n1.pem"), "ok", "signed, and good until", with("node-n1.pem", "node-n1.key", ca)},
		{"its holder", "certificate holder", "ok", "node/n1", with("node-n1.pem", "node-n1.key", ca)},
		{"none, by choice", "certificate", "warn", "can do anything", node.doctorArgs("--insecure")},
		{"none at loopback", "certificate", "ok", "none is needed", node.doctorArgs()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { diagnose(t, tt.args...).expect(t, tt.what, tt.result, tt.in) })
	}

	// While it runs: its peers' ports are opened by its certificate.
	secured := []string{"--tls-cert", filepath.Join(dir, "node-n1.pem"), "--tls-key", filepath.Join(dir, "node-n1.key"), "--tls-ca", ca}
	r := start(t, node.args(secured...)...)
	operator := []string{
		"--endpoints", node.grpc, "--ca", ca, "--cert", filepath.Join(dir, "operator-ada.pem"), "--key", filepath.Join(dir, "operator-ada.key"),
	}
	r.await("the node to lead", func() bool {
		return run(t, nil, "", append([]string{"cluster", "status", "-q", "--patience", "2s"}, operator...)...).stdout == "n1\n"
	})
	run(t, nil, "", append([]string{"participant", "put", "dice", "--driver", "sim"}, operator...)...)
	seen := diagnose(t, node.doctorArgs(secured...)...)
	seen.expect(t, "node n1", "ok", "runs: leader")
	seen.expect(t, "api n1", "ok", "of cluster")
	seen.expect(t, "participant", "skip", "DECREE_CERT")
	t.Setenv(caEnv, ca)
	t.Setenv(certEnv, filepath.Join(dir, "operator-ada.pem"))
	t.Setenv(keyEnv, filepath.Join(dir, "operator-ada.key"))
	diagnose(t, node.doctorArgs(secured...)...).expect(t, "participant dice", "skip", "in the nodes' own processes")
	if code := r.end(); code != exitOK {
		t.Errorf("exit %d: %s", code, r.stderr.String())
	}
}
