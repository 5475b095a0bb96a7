package e2e

import (
	"strings"
	"testing"
)

// stubs stand for what a distribution with rpm has installed: the root is a Debian, whose
// systemd and shell rpm knows nothing of.
const stubs = `Name: stubs
Version: 1
Release: 1
Summary: what dpkg has installed
License: none
BuildArch: noarch
Provides: systemd iproute /bin/sh
%description
none
%files
`

// The life of an rpm, with dnf.
func TestRPM(t *testing.T) {
	t.Parallel()
	h := newHost(t, trixie)
	h.Write("/tmp/stubs.spec", stubs)
	h.Run("mkdir /tmp/repo && cp /packages/*.x86_64.rpm /tmp/repo/ && rpmbuild --quiet --define '_rpmdir /tmp/repo' -bb /tmp/stubs.spec && createrepo_c -q /tmp/repo")
	h.Write("/etc/yum.repos.d/test.repo", "[test]\nname=test\nbaseurl=file:///tmp/repo\ngpgcheck=0\n")
	h.Write("/etc/dnf/dnf.conf", "[main]\nassumeyes=True\nclean_requirements_on_remove=False\n") // nobody is there to say yes
	h.Write("/etc/dnf/vars/releasever", "1")
	h.life(t, []step{
		{name: "install", run: func(h *host) {
			before := h.Run("ip route")
			g := readGuide(h.t, "docs/install.md", "From an rpm")
			if len(g.before) != 2 {
				h.t.Fatalf("docs/install.md says %q, want two commands", g.before)
			}
			h.inFolderWith(rpm(oldVersion, "x86_64"), g.before[:1])
			// Whether a service starts is the distribution's and the administrator's decision.
			if out, err := h.Try(h.ctx, "systemctl is-active nexthopd"); err == nil {
				h.t.Errorf("after dnf install the service is %s", out)
			}
			h.Run(g.before[1])
			h.fresh(before)
			h.Run("test -f /etc/sysconfig/nexthopd && test ! -e /etc/default/nexthopd")
		}},
		{name: "configure", run: (*host).configure},
		{name: "journal", run: (*host).journal},
		{name: "upgrade", run: func(h *host) { h.upgrade("dnf -q upgrade nexthopd") }},
		{name: "verify", run: func(h *host) {
			// Of all files, the edited configuration alone differs.
			out, _ := h.Try(h.ctx, "rpm -V nexthopd") // fails for any difference
			for line := range strings.Lines(out) {
				if !strings.HasSuffix(strings.TrimSpace(line), "/etc/nexthopd/nexthopd.yaml") {
					h.t.Errorf("rpm -V: %s", line)
				}
			}
		}},
		{name: "remove", run: func(h *host) {
			h.Run("dnf -q remove nexthopd")
			h.wantNothing()
			// An edited file is kept, under the name that rpm gives it.
			h.Wait("edited by hand", "cat /etc/nexthopd/nexthopd.yaml.rpmsave")
			h.Run("test ! -e /var/lib/nexthopd && test ! -e /usr/sbin/nexthopd")
		}},
		{name: "zypper", run: func(h *host) {
			zypper := "zypper --non-interactive --no-gpg-checks "
			h.Run(zypper + "addrepo --no-gpgcheck file:///tmp/repo test && " + zypper + "install /packages/" + rpm(newVersion, "x86_64"))
			h.Run("systemctl start nexthopd")
			h.configure()
			h.Run(zypper + "remove nexthopd")
			h.wantNothing()
		}},
	})
}
