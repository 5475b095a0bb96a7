package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/nexthopd/nexthopd/e2e/lab"
)

// profileEnv names a directory for profiles of nexthopd: CPU over the load and each
// failover, and the heap after them. Taking them slows the daemon down.
const profileEnv = "BENCH_PROFILE"

const pprofAddr = "127.0.0.1:6060"

// profile begins a CPU profile of the daemon in the node and returns what ends it; both do
// nothing unless profiles were asked for, and of other daemons.
func profile(host *lab.Node, column string, n int, phase string) (end func()) {
	dir := os.Getenv(profileEnv)
	if dir == "" || column != contenders[0].name {
		return func() {}
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			return conn, host.Do(func() error {
				conn, err = new(net.Dialer).DialContext(ctx, network, addr)
				return err
			})
		},
	}}
	save := func(name, path string) error {
		resp, err := client.Get("http://" + pprofAddr + "/debug/pprof/" + path)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%s-%d-%s", phase, n, name)))
		if err != nil {
			return err
		}
		_, err = io.Copy(f, resp.Body)
		return err
	}
	done := make(chan error, 1) // one profile
	length := 2 + n/50_000
	go func() { done <- save("cpu.pprof", fmt.Sprintf("profile?seconds=%d", length)) }()
	time.Sleep(100 * time.Millisecond) // until it has begun
	return func() {
		if err := <-done; err != nil {
			fmt.Fprintln(os.Stderr, "bench: profile:", err)
		}
		if err := save("heap.pprof", "heap"); err != nil {
			fmt.Fprintln(os.Stderr, "bench: profile:", err)
		}
	}
}
