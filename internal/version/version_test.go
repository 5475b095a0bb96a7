package version

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestFrom(t *testing.T) {
	full := &debug.BuildInfo{
		Main: debug.Module{Version: "v0.2.0"},
		Deps: []*debug.Module{{Path: "github.com/spf13/cobra", Version: "v1.10.2"}, {Path: gobgpModule, Version: "v4.8.0"}},
		Settings: []debug.BuildSetting{
			{Key: "vcs.modified", Value: "true"},
			{Key: "vcs.revision", Value: "0123abc"},
		},
	}
	replaced := &debug.BuildInfo{
		Main: debug.Module{Version: "(devel)"},
		Deps: []*debug.Module{{Path: gobgpModule, Version: "v4.8.0", Replace: &debug.Module{Version: "v4.8.1"}}},
	}
	tests := []struct {
		name    string
		release string
		bi      *debug.BuildInfo
		want    Info
	}{
		{"the linker's word counts", "v1.2.3", full, Info{"1.2.3", "0123abc-dirty", runtime.Version(), "4.8.0"}},
		{"module version", "", full, Info{"0.2.0", "0123abc-dirty", runtime.Version(), "4.8.0"}},
		{"development build, replaced module", "", replaced, Info{"unknown", "unknown", runtime.Version(), "4.8.1"}},
		{"no build information", "", nil, Info{"unknown", "unknown", runtime.Version(), "unknown"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := from(tt.release, tt.bi); got != tt.want {
				t.Errorf("from(%q) = %+v, want %+v", tt.release, got, tt.want)
			}
		})
	}
}

func TestString(t *testing.T) {
	want := "nexthopd 1.2.3 (revision abc, go1.26, GoBGP 4.8.0)"
	if got := (Info{"1.2.3", "abc", "go1.26", "4.8.0"}).String(); got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
}
