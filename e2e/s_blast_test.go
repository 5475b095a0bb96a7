package e2e_test

import (
	"fmt"
	"net/netip"
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
	b.quiet(t)

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

// held looks at what an operator sees of routes whose removal is held back: the status,
// the metric, and the explanation of one of them.
func (b *bed) held(t *testing.T, n int, p netip.Prefix, words ...string) {
	t.Helper()
	poll(t, fmt.Sprintf("%d routes held", n), func() error {
		s, err := b.d.Status(within(t))
		if err == nil && s.FIB.Held != n {
			err = fmt.Errorf("%d held, degraded: %v", s.FIB.Held, s.Degraded)
		}
		return err
	})
	if line := fmt.Sprintf("\nnexthopd_fib_held_routes %d\n", n); !strings.Contains(b.scrape(t), line) {
		t.Errorf("the metrics lack %q", line)
	}
	if n == 0 {
		poll(t, "a status without problems", func() error {
			out, _, exit, err := b.d.CLI(within(t), "status")
			if err == nil && exit != 0 {
				err = fmt.Errorf("exit status %d\n%s", exit, out)
			}
			return err
		})
		return
	}
	out, _, _, err := b.d.CLI(within(t), "status")
	must(t, err)
	_, explained := b.explain(t, p.String())
	for _, w := range append(words, "nexthopctl resume") {
		if !strings.Contains(out, w) || !strings.Contains(explained, w) {
			t.Errorf("want %q in\n%s\nand in\n%s", w, out, explained)
		}
	}
}

// What would take most routes away without a peer's doing is asked for first: a lower
// limit, a start with a wrong file, and a comparison with the kernel.
func TestBlastRadiusCauses(t *testing.T) {
	const more = "metrics: {listen: 127.0.0.1:9565}\n"
	good := hostConfig + more + nvaPeers(1)
	b := newBed(t, 1, good)
	mine := prefixes(nva.IPv4, 150)
	last := mine[149]
	connect := func() *nva.Session {
		t.Helper()
		s := b.nvas(t, 1)[0]
		announce(t, s, nva.Attrs{NextHop: lab.SeedNVA(0)}, mine...)
		must(t, s.EndOfRIB(nva.IPv4))
		must(t, s.EndOfRIB(nva.IPv6))
		b.route(t, last, lab.SeedNVA(0))
		b.quiet(t) // the others may be in another batch
		return s
	}
	s := connect()

	for name, file := range map[string]string{
		"freeze": hostConfig + more + nvaPeers(1, "prefix-limit: {max: 20, action: freeze}"),
		"close":  hostConfig + more + nvaPeers(1, "prefix-limit: 149"),
		"total":  hostConfig + more + "prefix-limit-total: 20\n" + nvaPeers(1),
	} {
		t.Run("limit, "+name, func(t *testing.T) {
			must(t, b.d.SetConfig(file))
			n := 130
			if name == "close" {
				n = 150
			}
			_, stderr, exit, err := b.d.CLI(within(t), "reload")
			if err != nil || exit != 1 || !strings.Contains(stderr, fmt.Sprintf("%d of 150", n)) {
				t.Errorf("nexthopctl reload: exit status %d, %v\n%s", exit, err, stderr)
			}
			b.held(t, n, last, fmt.Sprintf("would remove %d of 150", n))
			b.route(t, last, lab.SeedNVA(0))
			must(t, b.d.SetConfig(good))
			b.cli(t, "reload")
			b.held(t, 0, last)
		})
	}

	t.Run("resync", func(t *testing.T) {
		group := b.objects(t).routes[last]
		strangers := prefixes(nva.IPv4, 600)[300:]
		var script strings.Builder
		for _, p := range strangers {
			fmt.Fprintf(&script, "route add %s nhid %s proto 165 metric 20\n", p, group)
		}
		b.batch(t, script.String())
		out := b.cli(t, "resync")
		b.held(t, 300, strangers[299], "300 of the 450 routes", "marked as ours")
		if !strings.Contains(out, "nexthopctl resume") {
			t.Errorf("nexthopctl resync:\n%s", out)
		}
		b.logged(t, "routes-kept", `"routes":300`)
		b.route(t, strangers[299], lab.SeedNVA(0))
		if out := b.cli(t, "resume"); !strings.Contains(out, "300 of the 450 routes") {
			t.Errorf("nexthopctl resume:\n%s", out)
		}
		b.cli(t, "resume", "--yes")
		b.route(t, strangers[299])
		b.route(t, last, lab.SeedNVA(0))
		b.held(t, 0, last)
	})

	t.Run("start", func(t *testing.T) {
		must(t, b.d.Stop())
		must(t, b.d.SetConfig(strings.Replace(good, "10.1.0.0/16", "10.1.0.0/16, 100.0.0.0/8", 1)))
		must(t, b.d.Launch(within(t)))
		s = connect()
		b.held(t, 150, last, "the configuration at the start")
		b.logged(t, "routes-kept", `"reason":"sweep"`)
		b.route(t, last, lab.SeedNVA(0))
		must(t, b.d.SetConfig(good))
		b.cli(t, "reload")
		b.held(t, 0, last)
	})

	// The death of the peer takes them all without a question.
	s.Reset()
	b.route(t, last)
}
