package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/nexthopd/nexthopd/e2e/lab"
)

// The versions that the tests install and upgrade to.
const (
	oldVersion = "0.0.1"
	newVersion = "0.0.2"
)

// packages is where TestMain built them.
var packages string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if os.Geteuid() != 0 {
			return m.Run() // every test skips itself, or fails
		}
		var err error
		if packages, err = os.MkdirTemp("", "nexthopd-packages-"); err == nil {
			defer os.RemoveAll(packages)
			err = prepare()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// prepare makes what all tests share: the packages, and meanwhile the roots.
func prepare() error {
	g, ctx := errgroup.WithContext(context.Background())
	for _, r := range []Root{bookworm, trixie} {
		g.Go(func() error {
			_, err := r.Dir(ctx)
			return err
		})
	}
	g.Go(func() error {
		// The older one has both architectures, for what does not boot.
		if err := build("../..", packages, oldVersion); err != nil {
			return err
		}
		return build("../..", packages, newVersion, "amd64")
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return os.Chmod(packages, 0o755) // apt reads them as its own user
}

// build packages the source tree repo, at a time of its own: a copy has no commit's.
func build(repo, dir, version string, archs ...string) error {
	cmd := exec.Command(filepath.Join(repo, "packaging/build"), append([]string{dir}, archs...)...)
	cmd.Env = append(os.Environ(), "VERSION=v"+version, "SOURCE_DATE_EPOCH=1767225600")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("packaging/build: %w: %s", err, out)
	}
	return nil
}

func deb(version, arch string) string { return "nexthopd_" + version + "_" + arch + ".deb" }
func rpm(version, arch string) string { return "nexthopd-" + version + "-1." + arch + ".rpm" }

// inRoot runs a command in the root, without booting it and without a network, with the
// packages at /packages.
func inRoot(ctx context.Context, root, command string) (string, error) {
	script := `mount -t tmpfs tmpfs "$1/mnt"
mkdir "$1/mnt/up" "$1/mnt/work"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$1/mnt/up,workdir=$1/mnt/work" /mnt
mkdir /mnt/packages && mount --bind "$2" /mnt/packages
mount -t proc proc /mnt/proc && mount --bind /dev /mnt/dev
exec chroot /mnt /bin/bash -c "$3"`
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "bash", "-euc", script, "-", root, packages, command)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return string(out), err
}

func rootDir(t *testing.T, r Root) string {
	t.Helper()
	lab.RequireRoot(t)
	dir, err := r.Dir(t.Context())
	check(t, err)
	return dir
}

// The same source gives the same bytes, wherever it is built.
func TestReproducible(t *testing.T) {
	lab.RequireRoot(t)
	t.Parallel()
	again, repo := t.TempDir(), t.TempDir()
	out, err := exec.Command("bash", "-euo", "pipefail", "-c",
		`tar -C ../.. --exclude=./.git --exclude=./bin --exclude=./dist -c . | tar -C "$0" -xm`, repo).CombinedOutput()
	if err != nil {
		t.Fatalf("copy the source: %v: %s", err, out)
	}
	check(t, build(repo, again, newVersion, "amd64"))
	for _, name := range []string{deb(newVersion, "amd64"), rpm(newVersion, "x86_64")} {
		first, err := os.ReadFile(filepath.Join(packages, name))
		check(t, err)
		second, err := os.ReadFile(filepath.Join(again, name))
		check(t, err)
		if !bytes.Equal(first, second) {
			t.Errorf("%s: two builds differ", name)
		}
	}
}

// files are what operators, and other packages, find in each package, by mode.
var files = map[string]string{
	"/usr/sbin/nexthopd":                                             "-rwxr-xr-x",
	"/usr/bin/nexthopctl":                                            "-rwxr-xr-x",
	"/etc/nexthopd/nexthopd.yaml":                                    "-rw-r--r--",
	"/etc/nexthopd/secrets.d":                                        "drwx------",
	"/etc/iproute2/rt_protos.d/nexthopd.conf":                        "-rw-r--r--",
	"/usr/lib/systemd/system/nexthopd.service":                       "-rw-r--r--",
	"/usr/lib/sysusers.d/nexthopd.conf":                              "-rw-r--r--",
	"/usr/lib/sysctl.d/50-nexthopd.conf":                             "-rw-r--r--",
	"/usr/lib/systemd/networkd.conf.d/50-nexthopd.conf":              "-rw-r--r--",
	"/usr/lib/systemd/catalog/nexthopd.catalog":                      "-rw-r--r--",
	"/usr/share/bash-completion/completions/nexthopctl":              "-rw-r--r--",
	"/usr/share/fish/vendor_completions.d/nexthopctl.fish":           "-rw-r--r--",
	"/usr/share/man/man8/nexthopd.8.gz":                              "-rw-r--r--",
	"/usr/share/man/man1/nexthopctl.1.gz":                            "-rw-r--r--",
	"/usr/share/man/man5/nexthopd.yaml.5.gz":                         "-rw-r--r--",
	"/usr/share/nexthopd/nexthopd.schema.json":                       "-rw-r--r--",
	"/usr/share/doc/nexthopd/copyright":                              "-rw-r--r--",
	"/usr/share/doc/nexthopd/third-party-notices.gz":                 "-rw-r--r--",
	"/usr/share/doc/nexthopd/examples/prometheus/nexthopd.rules.yml": "-rw-r--r--",
	"/usr/share/doc/nexthopd/examples/grafana/nexthopd.json":         "-rw-r--r--",
}

var debFiles = map[string]string{
	"/etc/default/nexthopd":                         "-rw-r--r--",
	"/usr/share/zsh/vendor-completions/_nexthopctl": "-rw-r--r--",
	"/usr/share/doc/nexthopd/changelog.gz":          "-rw-r--r--",
}

var rpmFiles = map[string]string{
	"/etc/sysconfig/nexthopd":                   "-rw-r--r--",
	"/usr/share/zsh/site-functions/_nexthopctl": "-rw-r--r--",
}

func TestContent(t *testing.T) {
	root := rootDir(t, trixie)
	tests := []struct {
		name, command string
		also          map[string]string
	}{
		{"deb amd64", "dpkg-deb -c /packages/" + deb(oldVersion, "amd64"), debFiles},
		{"deb arm64", "dpkg-deb -c /packages/" + deb(oldVersion, "arm64"), debFiles},
		{"rpm x86_64", "rpm -qplv /packages/" + rpm(oldVersion, "x86_64"), rpmFiles},
		{"rpm aarch64", "rpm -qplv /packages/" + rpm(oldVersion, "aarch64"), rpmFiles},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, err := inRoot(t.Context(), root, tt.command)
			check(t, err)
			got := map[string]string{}
			for line := range strings.Lines(out) {
				f := strings.Fields(line)
				path := "/" + strings.Trim(strings.TrimPrefix(f[len(f)-1], "."), "/")
				got[path] = f[0]
				if !strings.Contains(strings.Join(f[1:5], " "), "root") || strings.Contains(path, "/var/") {
					t.Errorf("%s: want root's, and nothing in /var", strings.TrimSpace(line))
				}
			}
			for _, want := range []map[string]string{files, tt.also} {
				for path, mode := range want {
					if got[path] != mode {
						t.Errorf("%s has mode %q, want %q", path, got[path], mode)
					}
				}
			}
		})
	}
}

func TestMetadata(t *testing.T) {
	root := rootDir(t, trixie)
	tests := []struct{ name, command, want string }{
		{"deb", "dpkg-deb -f /packages/" + deb(oldVersion, "arm64") + " Package Version Architecture Depends",
			"Package: nexthopd\nVersion: 0.0.1\nArchitecture: arm64\nDepends: systemd\n"},
		{"deb conffiles", "dpkg-deb -I /packages/" + deb(oldVersion, "amd64") + " conffiles | sort",
			"/etc/default/nexthopd\n/etc/iproute2/rt_protos.d/nexthopd.conf\n/etc/nexthopd/nexthopd.yaml\n"},
		{"rpm", "rpm -qp --qf '%{NAME} %{VERSION}-%{RELEASE} %{ARCH} %{LICENSE}\\n' /packages/" + rpm(oldVersion, "aarch64"),
			"nexthopd 0.0.1-1 aarch64 Apache-2.0\n"},
		{"rpm config", "rpm -qp --qf '[%{FILEFLAGS:fflags} %{FILENAMES}\\n]' /packages/" + rpm(oldVersion, "x86_64") + " | grep ^c | sort -k2",
			"cn /etc/iproute2/rt_protos.d/nexthopd.conf\ncn /etc/nexthopd/nexthopd.yaml\ncn /etc/sysconfig/nexthopd\n"},
		{"static", "cd /tmp && dpkg-deb -x /packages/" + deb(oldVersion, "amd64") + " x && ldd x/usr/sbin/nexthopd x/usr/bin/nexthopctl 2>&1 | grep -c 'not a dynamic executable'", "2\n"},
		{"version", "cd /tmp && dpkg-deb -x /packages/" + deb(newVersion, "amd64") + " x && x/usr/bin/nexthopctl --version", "nexthopctl 0.0.2\n"},
		{"sample config", "cd /tmp && dpkg-deb -x /packages/" + deb(oldVersion, "amd64") + " x && x/usr/sbin/nexthopd check x/etc/nexthopd/nexthopd.yaml",
			"x/etc/nexthopd/nexthopd.yaml: ok: ASN 65515, 0 peers, 0 VNet prefixes, table 254 metric 20, mode install\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if out, err := inRoot(t.Context(), root, tt.command); err != nil || out != tt.want {
				t.Errorf("%s printed %q (%v), want %q", tt.command, out, err, tt.want)
			}
		})
	}
}

func TestLintian(t *testing.T) {
	t.Parallel()
	root := rootDir(t, trixie)
	out, err := inRoot(t.Context(), root, "cd /packages && lintian --allow-root --fail-on error,warning "+deb(oldVersion, "amd64")+" "+deb(oldVersion, "arm64"))
	if err != nil || strings.Contains(out, "W: ") || strings.Contains(out, "E: ") {
		t.Errorf("lintian: %v\n%s", err, out)
	}
}

func TestManualPages(t *testing.T) {
	root := rootDir(t, trixie)
	for _, page := range []string{"man8/nexthopd.8", "man1/nexthopctl.1", "man5/nexthopd.yaml.5"} {
		out, err := inRoot(t.Context(), root, "cd /tmp && dpkg-deb -x /packages/"+deb(oldVersion, "amd64")+
			" x && MANROFFSEQ= MANWIDTH=80 man --warnings -l x/usr/share/man/"+page+".gz 2>&1 >/dev/null")
		if err != nil || out != "" {
			t.Errorf("man %s: %v\n%s", page, err, out)
		}
	}
}
