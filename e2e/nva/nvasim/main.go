// Command nvasim runs the built-in appliance simulator as a process of its own, so
// that it can be killed like one, and talks to a running one.
//
//	nvasim run --local 10.1.0.4 --remote 10.1.2.4:179 --asn 65147 --socket FILE [COMMAND...]
//	nvasim ctl FILE COMMAND
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/nexthopd/nexthopd/e2e/nva"
)

const usage = `usage: nvasim run --local ADDRESS --remote ADDRESS:PORT --asn ASN --socket FILE [COMMAND...]
       nvasim ctl FILE COMMAND

Commands, each one argument of "run":
` + nva.Usage

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	switch args := os.Args[1:]; {
	case len(args) > 0 && args[0] == "run":
		err = run(ctx, args[1:])
	case len(args) > 2 && args[0] == "ctl":
		err = ctl(ctx, args[1], strings.Join(args[2:], " "))
	default:
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nvasim:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var local, id netip.Addr
	var remote netip.AddrPort
	flags := flag.NewFlagSet("nvasim run", flag.ExitOnError)
	flags.TextVar(&local, "local", netip.Addr{}, "own `address`")
	flags.TextVar(&remote, "remote", netip.AddrPort{}, "the route server's `address:port`")
	flags.TextVar(&id, "id", netip.Addr{}, "BGP `identifier`; the own address when it is IPv4")
	asn := flags.Uint("asn", 0, "own `ASN`")
	hold := flags.Duration("hold", 180*time.Second, "hold time to offer")
	socket := flags.String("socket", "", "control socket `file`")
	_ = flags.Parse(args) // ExitOnError
	if !id.IsValid() {
		id = local
	}
	if !remote.IsValid() || !id.Is4() || *asn == 0 || *socket == "" {
		return errors.New("--local, --remote, --asn and --socket are needed, and --id where the own address is IPv6")
	}
	sim := nva.NewSimulator(nva.Options{
		Transport: nva.Transport{Local: local, Remote: remote},
		ASN:       uint32(*asn), ID: id, Hold: *hold, Families: []nva.Family{nva.IPv4, nva.IPv6},
	})
	for _, command := range flags.Args() {
		if _, err := sim.Command(command); err != nil {
			return err
		}
	}
	l, err := net.Listen("unix", *socket)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1) // written once
	go func() {
		served <- sim.ServeControl(ctx, l)
		cancel()
	}()
	sim.Run(ctx)
	return <-served
}

func ctl(ctx context.Context, socket, command string) error {
	lines, err := nva.Control(ctx, socket, command)
	if err != nil {
		return err
	}
	for _, line := range lines {
		fmt.Println(line)
	}
	return nil
}
