// Package version is the one place that knows what was built: the release set by the
// linker, or else what the Go toolchain recorded in the binary.
package version

import (
	"runtime"
	"runtime/debug"
	"strings"
)

// release is set by the build:
//
//	go build -ldflags "-X github.com/nexthopd/nexthopd/internal/version.release=1.2.3"
var release string

// gobgpModule is the BGP speaker we embed; its version is shown because its behaviour
// is a part of ours.
const gobgpModule = "github.com/osrg/gobgp/v4"

// Info describes the binary. Fields that are not known are "unknown".
type Info struct {
	Version  string // without leading v
	Revision string // VCS commit, with "-dirty" when the tree was changed
	Go       string
	GoBGP    string
}

// Get reads the binary's own build information.
func Get() Info {
	bi, _ := debug.ReadBuildInfo() // nil outside of module mode
	return from(release, bi)
}

// String is one line for a person.
func (i Info) String() string {
	return "nexthopd " + i.Version + " (revision " + i.Revision + ", " + i.Go + ", GoBGP " + i.GoBGP + ")"
}

func from(release string, bi *debug.BuildInfo) Info {
	info := Info{Version: strings.TrimPrefix(release, "v"), Revision: "unknown", Go: runtime.Version(), GoBGP: "unknown"}
	if bi == nil {
		bi = &debug.BuildInfo{}
	}
	if v := bi.Main.Version; info.Version == "" && v != "(devel)" {
		info.Version = strings.TrimPrefix(v, "v")
	}
	if info.Version == "" {
		info.Version = "unknown"
	}
	dirty := false
	for _, s := range bi.Settings {
		switch s.Key {
		case "vcs.revision":
			info.Revision = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if dirty && info.Revision != "unknown" {
		info.Revision += "-dirty"
	}
	for _, m := range bi.Deps {
		if m.Path != gobgpModule {
			continue
		}
		if m.Replace != nil {
			m = m.Replace
		}
		info.GoBGP = strings.TrimPrefix(m.Version, "v")
	}
	return info
}
