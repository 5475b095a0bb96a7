package nva

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Usage describes the control language of a Simulator.
const Usage = `announce PREFIX... [prepend N] [nexthop ADDRESS] [med N] [origin igp|egp|incomplete] [community A:B,...]
withdraw PREFIX...
received        what the peer announced
status          how the session is
reset           end the session with a TCP reset; it comes back
close           end the session with Cease/Administrative Shutdown; it comes back
silence         stop talking and listening, with the connection open`

func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, err
	}
	if p != p.Masked() {
		return p, fmt.Errorf("prefix %s has host bits set, %s is meant", p, p.Masked())
	}
	return p, nil
}

// parseAnnounce reads what follows the word announce.
func parseAnnounce(words []string, asn uint32) ([]netip.Prefix, Attrs, error) {
	a := Attrs{ASPath: Seq(asn)}
	var prefixes []netip.Prefix
	for len(words) > 0 && strings.Contains(words[0], "/") {
		p, err := parsePrefix(words[0])
		if err != nil {
			return nil, a, err
		}
		prefixes, words = append(prefixes, p), words[1:]
	}
	if len(prefixes) == 0 {
		return nil, a, errors.New("announce: no prefix")
	}
	for ; len(words) > 0; words = words[2:] {
		if len(words) == 1 {
			return nil, a, fmt.Errorf("announce: %q needs a value", words[0])
		}
		if err := a.set(words[0], words[1], asn); err != nil {
			return nil, a, fmt.Errorf("announce: %s: %w", words[0], err)
		}
	}
	return prefixes, a, nil
}

// set gives one attribute a value.
func (a *Attrs) set(name, value string, asn uint32) error {
	switch name {
	case "prepend":
		n, err := strconv.ParseUint(value, 10, 7)
		if err != nil {
			return err
		}
		a.ASPath = Prepended(asn, int(n))
	case "nexthop":
		nh, err := netip.ParseAddr(value)
		if err != nil {
			return err
		}
		a.NextHop = nh
	case "med":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return err
		}
		med := uint32(n)
		a.MED = &med
	case "origin":
		i := slices.Index([]string{"igp", "egp", "incomplete"}, value)
		if i < 0 {
			return fmt.Errorf("%q is none of igp, egp, incomplete", value)
		}
		a.Origin = Origin(i)
	case "community":
		for _, c := range strings.Split(value, ",") {
			high, low, ok := strings.Cut(c, ":")
			h, err1 := strconv.ParseUint(high, 10, 16)
			l, err2 := strconv.ParseUint(low, 10, 16)
			if !ok || err1 != nil || err2 != nil {
				return fmt.Errorf("%q is not of the form 65515:1", c)
			}
			a.Communities = append(a.Communities, Community(h<<16|l))
		}
	default:
		return errors.New("unknown word")
	}
	return nil
}

// ServeControl answers commands on a listener until ctx ends: per command the lines
// of its answer, then "ok" or "error: ...".
func (s *Simulator) ServeControl(ctx context.Context, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			s.serveConn(conn)
		}()
	}
}

func (s *Simulator) serveConn(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewScanner(conn)
	for in.Scan() {
		lines, err := s.Command(in.Text())
		if err != nil {
			lines = append(lines, "error: "+err.Error())
		} else {
			lines = append(lines, "ok")
		}
		if _, err := fmt.Fprintln(conn, strings.Join(lines, "\n")); err != nil {
			return
		}
	}
}

// Control sends one command to the Simulator behind a control socket.
func Control(ctx context.Context, socket, command string) ([]string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := fmt.Fprintln(conn, command); err != nil {
		return nil, err
	}
	var lines []string
	in := bufio.NewScanner(conn)
	for in.Scan() {
		switch text, isErr := strings.CutPrefix(in.Text(), "error: "); {
		case isErr:
			return nil, errors.New(text)
		case text == "ok":
			return lines, nil
		default:
			lines = append(lines, text)
		}
	}
	return nil, errors.Join(fmt.Errorf("no answer to %q from %s", command, socket), in.Err())
}
