package diag

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// NetAdmin returns nil when the calling thread may write routes, else one line that says
// what is missing and how to grant it.
func NetAdmin() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3} // pid 0: the calling thread
	var data [2]unix.CapUserData                                        // version 3: 64 bits in two halves
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0 {
		return nil
	}
	return errors.New("CAP_NET_ADMIN is missing, so no route can be written: run as root, grant it in the unit " +
		"(AmbientCapabilities=CAP_NET_ADMIN CAP_NET_BIND_SERVICE), or compute without writing with `fib: {mode: observe}`")
}
