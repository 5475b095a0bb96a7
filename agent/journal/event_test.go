package journal

import (
	"regexp"
	"strings"
	"testing"
)

// MESSAGE_IDs are an interface: scripts and catalogues refer to them. This list only
// ever grows.
func TestMessageIDsAreStable(t *testing.T) {
	want := map[string]string{
		"started":              "d077b2760fe6498da4bdd08d40c59b27",
		"stopping":             "ec9e85fef49b46b683ff62a5e9bbf28c",
		"failed":               "14c78407ccef4a7291ff3f1891242b1f",
		"session-up":           "ae2d35535fff47878bf1ae9e78c949aa",
		"session-down":         "e5d73807f6ab49619cd835acab55bc49",
		"restart-expired":      "8833c2c5ba224e8d9d5e903a25db502e",
		"long-lived-start":     "1fd6cd5724b949378e9d3b8814ca4f8f",
		"long-lived-end":       "6cd117ae0b7d4e4a93e4fdb5c54b1304",
		"bfd-up":               "c5a21ee379d94d19b65a7041f7b8b2ba",
		"bfd-down":             "33279885b95147cbab251b4798aa2ffd",
		"persist-start":        "34acc9266941482ba3b12cdaea2144c2",
		"persist-end":          "8c4f3dea59fa40c69fd7ba1053fc3d7e",
		"prefix-limit-warning": "5be0b94424744736b7e0ba93e1178491",
		"prefix-limit-reached": "1c900bed687e4a2f92b4ad78e471dab7",
		"dynamic-refused":      "b50d364a595e409db0a38ec6f9ba2689",
		"connection-refused":   "f4051ad07b43468cb1f378fba96ff4fc",
		"fib-refused":          "4a0f018e50864f8fba16aa1b57b66613",
		"foreign-conflict":     "5bffac30eba84e4ea75706ce61b20398",
		"repair":               "89c1d8f04f5f4967add4851653e4788b",
		"resync":               "e8f469666d6b4f2faf09c3a39bcda924",
		"failover":             "464f36bb506b464abc9b29bae070cf0e",
		"nexthop-lost":         "baf77303213f4ac9b25b66ca7052afbe",
		"nexthop-found":        "92301c43cb7c44f8a9dc9e9366779cd8",
		"config-applied":       "5105f087af6148baaaba78df35cb675c",
		"config-refused":       "e4f63cdcfec64b3eabeeae477b77c927",
		"config-incomplete":    "3943d22094e14d92ae90c51a8241c0be",
		"blast-radius":         "7c1d0b9e5a2f4d36b8e04f6c93a1d2e7",
		"swept":                "7c440aa4f2fd44a3af217c5d1305bd03",
		"sweep-held":           "67e00585f07d491f89aad6b124a2f52b",
		"routes-kept":          "c3ec304dda3c4e6c927edfe98f8ee270",
		"contested":            "bc873509b9824053bfd454eaa1351baa",
		"faulty-message":       "37a5300cc24d4544acc5e87b527f8e75",
		"unhealthy":            "78afe0108c004a1f9f33f2a9002f574d",
		"operator-action":      "6dbbfe9a075a40748bcc5a3965be33d2",
	}
	valid := regexp.MustCompile(`^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}$`) // sd_id128: a random UUID
	seen := make(map[string]string)
	for _, ev := range Events() {
		if want[ev.Name] != ev.ID {
			t.Errorf("event %q has ID %s, want %s", ev.Name, ev.ID, want[ev.Name])
		}
		if !valid.MatchString(ev.ID) {
			t.Errorf("event %q: ID %q is not a random 128-bit id", ev.Name, ev.ID)
		}
		if other, ok := seen[ev.ID]; ok {
			t.Errorf("events %q and %q share an ID", ev.Name, other)
		}
		seen[ev.ID] = ev.Name
		if ev.Message == "" || ev.Cause == "" || ev.Next == "" {
			t.Errorf("event %q lacks a text: %+v", ev.Name, ev)
		}
	}
	if len(seen) != len(want) {
		t.Errorf("Events() lists %d events, want %d", len(seen), len(want))
	}
}

// What a record may hold is explained, and what is explained is in some record.
func TestFieldsAreExplained(t *testing.T) {
	used := map[string]bool{keyMessageID: true, keyEvent: true, keySuppressed: true}
	for _, ev := range Events() {
		for _, f := range strings.Fields(ev.Fields) {
			used[strings.Trim(f, "()")] = true
		}
	}
	for _, f := range Fields() {
		if !used[f.Name] {
			t.Errorf("field %s is explained and in no event", f.Name)
		}
		if delete(used, f.Name); f.Means == "" {
			t.Errorf("field %s is not explained", f.Name)
		}
	}
	for name := range used {
		t.Errorf("field %s is explained nowhere", name)
	}
}
