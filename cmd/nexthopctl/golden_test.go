package main

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/nexthopd/nexthopd/agent/status"
)

// TestOutput pins what operators and their scripts read: S32 (learned), S33
// (advertised), S34 (azure), S35 (routes), S36 (explain).
func TestOutput(t *testing.T) {
	socket := canned(t)
	for _, tt := range []struct {
		name string
		args string
		code int
	}{
		{"status", "status", exitDegraded},
		{"status-json", "status -o json", exitDegraded},
		{"status-quiet", "status -q", exitDegraded},
		{"peers", "peers", exitOK},
		{"peers-wide", "peers -o wide", exitOK},
		{"peers-json", "peers -o json", exitOK},
		{"peer", "peer bird", exitOK},
		{"peer-bfd", "peer quagga", exitOK},
		{"peer-down", "peer 2001:db8::6", exitOK},
		{"peer-json", "peer off -o json", exitOK},
		{"failovers", "failovers", exitOK},
		{"failovers-json", "failovers -o json", exitOK},
		{"doctor", "doctor", exitDegraded},
		{"doctor-wide", "doctor -o wide", exitDegraded},
		{"doctor-json", "doctor -o json", exitDegraded},
		{"bfd", "bfd", exitOK},
		{"bfd-wide", "bfd -o wide", exitOK},
		{"bfd-json", "bfd -o json", exitOK},
		{"learned", "learned", exitOK},
		{"learned-peer", "learned bird", exitOK},
		{"learned-address", "learned 10.1.0.4", exitOK},
		{"learned-wide", "learned -o wide", exitOK},
		{"learned-json", "learned bird -o json", exitOK},
		{"learned-azure", "learned quagga -o azure", exitOK},
		{"advertised", "advertised", exitOK},
		{"advertised-peer", "advertised quagga", exitOK},
		{"advertised-wide", "advertised quagga -o wide", exitOK},
		{"advertised-azure", "advertised bird -o azure", exitOK},
		{"routes", "routes", exitOK},
		{"routes-wide", "routes -o wide", exitOK},
		{"explain", "explain 192.168.255.0/24", exitOK},
		{"explain-address", "explain 192.168.255.10", exitOK},
		{"explain-unknown", "explain 2001:db8::1", exitOK},
		{"explain-held", "explain 192.0.2.0/24", exitOK},
		{"explain-json", "explain 192.168.255.0/24 -o json", exitOK},
		{"policy-test", "policy test --peer bird 10.1.0.0/16 --as-path 65147,65001 --community 65147:100 --med 5", exitOK},
		{"policy-test-export", "policy test --peer bird 10.2.0.0/16 --export", exitOK},
		{"policy-test-learned", "policy test --peer bird --against-learned", exitOK},
		{"policy-test-json", "policy test --peer bird --against-learned -o json", exitOK},
		{"man", "gen-man", exitOK},
		{"help", "--help", exitOK},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ctl(t, socket, strings.Fields(tt.args)...)
			if got.code != tt.code || got.stderr != "" {
				t.Errorf("run(%s) = %d, stderr %q, want %d and none", tt.args, got.code, got.stderr, tt.code)
			}
			for i, r := range got.stdout {
				if r != '\n' && clean(string(r)) != string(r) {
					t.Errorf("run(%s) prints %U at byte %d", tt.args, r, i)
				}
			}
			golden(t, tt.name, got.stdout)
		})
	}
}

// TestAzureShape decodes -o azure as a script written for the service does (S34).
func TestAzureShape(t *testing.T) {
	got := ctl(t, canned(t), "learned", "-o", "azure")
	var out map[string][]map[string]any
	if err := json.Unmarshal([]byte(got.stdout), &out); err != nil {
		t.Fatalf("-o azure is not JSON: %v\n%s", err, got.stdout)
	}
	list := out["RouteServiceRole_IN_0"]
	if len(out) != 1 || len(list) != len(cannedLearned()) {
		t.Fatalf("-o azure has %d keys and %d routes, want 1 and %d", len(out), len(list), len(cannedLearned()))
	}
	want := map[string]any{
		"asPath": "65147", "localAddress": "10.1.2.4", "network": "192.168.255.0/24", "nextHop": "10.1.0.4",
		"origin": "EBgp", "sourcePeer": "10.1.0.4", "weight": 32768.0,
	}
	if !reflect.DeepEqual(list[0], want) {
		t.Errorf("-o azure [0] = %v, want %v", list[0], want)
	}
}

// TestJSONIsTheContract checks that -o json is the daemon's value, hostile text included.
func TestJSONIsTheContract(t *testing.T) {
	got := ctl(t, canned(t), "peers", "-o", "json")
	var peers []status.Peer
	if err := json.Unmarshal([]byte(got.stdout), &peers); err != nil {
		t.Fatal(err)
	}
	if want := cannedPeers(); !reflect.DeepEqual(peers, want) {
		t.Errorf("peers -o json = %+v, want %+v", peers, want)
	}
}

func TestEmptyAnswers(t *testing.T) {
	for _, body := range []string{"null", "[]", " [ ] "} {
		socket := serve(t, raw(http.StatusOK, body))
		for args, want := range map[string]string{
			"learned -o json":    "[]\n",
			"advertised -o json": "[]\n",
			"peers -o json":      "[]\n",
			"learned -o azure":   "{\n  \"RouteServiceRole_IN_0\": []\n}\n",
			"routes":             "Source  State  Prefix  NextHopType  NextHopIP\n",
		} {
			if got := ctl(t, socket, strings.Fields(args)...); got.code != exitOK || got.stdout != want {
				t.Errorf("%s of %q = %d %q, want %q; stderr %s", args, body, got.code, got.stdout, want, got.stderr)
			}
		}
	}
}

func TestStatusExitCodes(t *testing.T) {
	problem := []status.Problem{{What: "w", Next: "n"}}
	for _, tt := range []struct {
		name   string
		answer status.Status
		code   int
		says   []string
	}{
		{"fine", status.Status{Ready: true}, exitOK, []string{": ok,"}},
		{"degraded", status.Status{Ready: true, Degraded: problem}, exitDegraded, []string{"degraded: 1 problem,", "! w", "next: n"}},
		{"not ready", status.Status{NotReady: "waiting for quagga's End-of-RIB"}, exitDegraded, []string{": not ready,", "waiting for quagga's End-of-RIB"}},
		{"both", status.Status{NotReady: "x", Degraded: problem}, exitDegraded, []string{"not ready, degraded: 1 problem", "! w"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			socket := serve(t, answer(tt.answer))
			loud, quiet := ctl(t, socket, "status"), ctl(t, socket, "status", "-q")
			if loud.code != tt.code || quiet.code != tt.code {
				t.Errorf("status = %d, status -q = %d, want %d", loud.code, quiet.code, tt.code)
			}
			if quiet.stdout+quiet.stderr != "" {
				t.Errorf("status -q prints %q", quiet.stdout+quiet.stderr)
			}
			for _, s := range tt.says {
				if !strings.Contains(loud.stdout, s) {
					t.Errorf("status prints %q, want %q in it", loud.stdout, s)
				}
			}
		})
	}
}

// TestDoctorWithoutADaemon: what needs no daemon is examined all the same, for it may be
// what keeps the daemon from starting.
func TestDoctorWithoutADaemon(t *testing.T) {
	got := ctl(t, "/nonexistent/sock", "doctor")
	if got.code != exitDegraded || got.stderr != "" {
		t.Errorf("doctor = %d, stderr %q, want %d and none", got.code, got.stderr, exitDegraded)
	}
	for _, want := range []string{"error daemon: nexthopd does not answer: no socket", "mend: systemctl status nexthopd", "warning hash-policy"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("doctor prints\n%swant %q in it", got.stdout, want)
		}
	}
}

// TestStatusFitsAScreen: two hundred dead peers must not push the summary off it.
func TestStatusFitsAScreen(t *testing.T) {
	st := cannedStatus()
	for len(st.Degraded) < 200 {
		st.Degraded = append(st.Degraded, st.Degraded[0])
	}
	socket := serve(t, answer(st))
	if got := ctl(t, socket, "status"); strings.Count(got.stdout, "\n") > 40 || !strings.Contains(got.stdout, "and 192 more") {
		t.Errorf("status of 200 problems has %d lines:\n%s", strings.Count(got.stdout, "\n"), got.stdout)
	}
	if got := ctl(t, socket, "status", "-o", "wide"); strings.Count(got.stdout, "! peer lost") != 199 {
		t.Errorf("status -o wide leaves problems out")
	}
}

// TestExplainVerdicts: what is said of a path follows from its step, its reason, and
// whether the prefix made it into the kernel (S36).
func TestExplainVerdicts(t *testing.T) {
	for _, tt := range []struct {
		name   string
		reason string
		path   status.ExplainPath
		want   string
	}{
		{"used", "", status.ExplainPath{Path: status.Path{Installed: true}}, ": used\n"},
		{"shared", "", status.ExplainPath{Path: status.Path{Installed: true}, ECMP: true}, ": used, shares the traffic\n"},
		{"long-lived stale", "", status.ExplainPath{Path: status.Path{Installed: true, Stale: true, LongLivedStale: true}}, ": used, long-lived stale (graceful restart)\n"},
		{"stale", "", status.ExplainPath{Path: status.Path{Installed: true, Stale: true}}, ": used, stale (graceful restart)\n"},
		{"step", "", status.ExplainPath{Path: status.Path{Reason: "med-higher"}, Step: "med-higher"}, ": not used, lost at med-higher\n"},
		{"reason", "", status.ExplainPath{Path: status.Path{Reason: "next-hop-is-self"}}, ": not used: next-hop-is-self\n"},
		{"foreign", "foreign-route", status.ExplainPath{ECMP: true}, ": chosen, not installed: foreign-route\n"},
		{"observed", "", status.ExplainPath{}, ": chosen, not installed\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.path.Peer, tt.path.SourcePeer = "quagga", "10.1.0.4"
			socket := serve(t, answer(status.Explanation{Reason: tt.reason, Paths: []status.ExplainPath{tt.path}}))
			if got := ctl(t, socket, "explain", "10.0.0.0/8"); !strings.Contains(got.stdout, "  quagga (10.1.0.4)"+tt.want) {
				t.Errorf("explain prints %q, want %q in it", got.stdout, tt.want)
			}
		})
	}
}
