package netnstest

import (
	"net"
	"testing"

	"github.com/vishvananda/netns"
)

func TestNewIsolatesAndRestores(t *testing.T) {
	RequireRoot(t)
	outside, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()

	t.Run("inside", func(t *testing.T) {
		ns := New(t)
		here, err := netns.Get()
		if err != nil {
			t.Fatal(err)
		}
		defer here.Close()
		if here.Equal(outside) {
			t.Error("New left the test in the namespace it came from")
		}
		links, err := net.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		if len(links) != 1 || links[0].Flags&net.FlagUp == 0 {
			t.Errorf("links of a fresh namespace = %v, want only lo, up", links)
		}
		t.Run("subtest", func(t *testing.T) {
			ns.Enter(t)
			sub, err := netns.Get()
			if err != nil {
				t.Fatal(err)
			}
			defer sub.Close()
			if !sub.Equal(here) {
				t.Error("Enter did not enter the parent's namespace")
			}
		})
	})

	now, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer now.Close()
	if !now.Equal(outside) {
		t.Error("the namespace leaked out of the test")
	}
}
