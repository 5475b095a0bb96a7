package e2e

import (
	"encoding/json"
)

// What the package sets is what doctor asks for, seen by root and by a member of the
// group; what an administrator breaks is found, and mended by the command it gives.
func (h *host) doctor() {
	type finding struct{ Check, Severity, Says, Mend string }
	examine := func(as string) map[string]finding {
		h.t.Helper()
		var all []finding
		check(h.t, json.Unmarshal([]byte(h.Run(as+"nexthopctl doctor -o json || [ $? -eq 4 ]")), &all))
		found := map[string]finding{}
		for _, f := range all {
			if _, has := found[f.Check]; !has {
				found[f.Check] = f
			}
		}
		return found
	}
	for _, as := range []string{"", "runuser -u member -- "} {
		found := examine(as)
		for _, name := range []string{
			"daemon", "namespace", "capabilities", "port", "way-to-peer", "mtu", "multipath", "hash-policy", "next-hop-objects",
			"compat-mode", "ecmp", "rules", "protocol", "metric", "networkd",
		} {
			if f := found[name]; f.Severity != "ok" {
				h.t.Errorf("%snexthopctl doctor: %+v, want %s to be ok", as, f, name)
			}
		}
	}
	h.Run("sysctl -q -w net.ipv4.fib_multipath_hash_policy=0")
	broken := examine("")["hash-policy"]
	if broken.Severity != "warning" {
		h.t.Fatalf("with a hash by addresses only: %+v", broken)
	}
	h.Run(broken.Mend)
	if f := examine("")["hash-policy"]; f.Severity != "ok" {
		h.t.Errorf("after %s: %+v", broken.Mend, f)
	}
}
