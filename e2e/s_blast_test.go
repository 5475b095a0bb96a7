package e2e_test

import (
	"strings"
	"testing"

	"github.com/nexthopd/nexthopd/e2e/lab"
	"github.com/nexthopd/nexthopd/e2e/nva"
)

// A file in which a peer is missing by mistake costs no route: the reload is held back,
// until somebody is sure or the file is mended.
func TestBlastRadius(t *testing.T) {
	both, one := hostConfig+nvaPeers(2), hostConfig+nvaPeers(1)
	b := newBed(t, 2, both)
	s := b.nvas(t, 2)
	mine := prefixes(nva.IPv4, 150)
	announce(t, s[1], nva.Attrs{NextHop: lab.SeedNVA(1)}, mine...)
	announce(t, s[0], nva.Attrs{NextHop: lab.SeedNVA(0)}, lab.SeedBranch)
	b.route(t, mine[149], lab.SeedNVA(1))
	b.route(t, lab.SeedBranch, lab.SeedNVA(0))

	refused := func() {
		t.Helper()
		must(t, b.d.SetConfig(one))
		if out := b.cli(t, "reload", "--dry-run"); !strings.Contains(out, "removes 150 of 151 installed routes") {
			t.Errorf("nexthopctl reload --dry-run:\n%s", out)
		}
		out, stderr, exit, err := b.d.CLI(within(t), "reload")
		if err != nil || exit != 1 || !strings.Contains(stderr, "150 of 151") || !strings.Contains(stderr, "nexthopctl resume") {
			t.Errorf("nexthopctl reload: exit status %d, %v\n%s%s", exit, err, out, stderr)
		}
		b.route(t, mine[0], lab.SeedNVA(1))
		b.up(t, "nva1", "nva2")
		out, _, exit, err = b.d.CLI(within(t), "status")
		if err != nil || exit != 4 || !strings.Contains(out, "held back") {
			t.Errorf("nexthopctl status: exit status %d, %v\n%s", exit, err, out)
		}
	}
	refused()
	must(t, b.d.SetConfig(both))
	if out := b.cli(t, "reload"); !strings.Contains(out, "no change") {
		t.Errorf("nexthopctl reload of the mended file:\n%s", out)
	}
	if out := b.cli(t, "status"); strings.Contains(out, "held back") {
		t.Errorf("nexthopctl status:\n%s", out)
	}
	refused()
	if out := b.cli(t, "resume"); !strings.Contains(out, "peer nva2 removed") || !strings.Contains(out, "nexthopctl resume --yes") {
		t.Errorf("nexthopctl resume:\n%s", out)
	}
	b.cli(t, "resume", "--yes")
	b.route(t, mine[0])
	b.route(t, lab.SeedBranch, lab.SeedNVA(0))
	b.up(t, "nva1")
}
