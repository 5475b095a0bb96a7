package config

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nexthopd/nexthopd/internal/web"
)

// bgpPort is BGP's, RFC 4271 section 4.2.
const bgpPort = 179

// The kinds of values. None of them knows of another value: what concerns two is in check.go.
var (
	boolean = scalar[bool]{"true or false", func(text string) (bool, error) {
		if text != "true" && text != "false" {
			return false, fmt.Errorf("%q is neither true nor false", text)
		}
		return text == "true", nil
	}}
	asNumber = scalar[uint32]{
		"1 to 4294967294, except 23456 and 65535, as a plain number", parseASN,
	}
	routerID = scalar[netip.Addr]{"IPv4 address, not 0.0.0.0", func(text string) (netip.Addr, error) {
		a, err := parseAddr(text)
		switch {
		case err != nil:
			return a, err
		case !a.Is4():
			return a, fmt.Errorf("%s is not an IPv4 address", a)
		case a.IsUnspecified(): // RFC 6286 section 2.1: any value but zero
			return a, fmt.Errorf("%s is no BGP identifier", a)
		}
		return a, nil
	}}
	unicastAddress = scalar[netip.Addr]{"unicast IPv4 or IPv6 address without a zone", parseUnicast}
	listenAddress  = scalar[netip.AddrPort]{
		"address or address:port, IPv6 with port as [address]:port", parseListen,
	}
	prefix     = scalar[netip.Prefix]{"address/length without host bits", parsePrefix}
	vnetPrefix = scalar[netip.Prefix]{"unicast address/length without host bits, not the default route", parseVNetPrefix}
	peerName   = scalar[string]{
		"1 to 63 letters, digits, dots, hyphens and underscores, the first a letter or a digit", parseName,
	}
	description = scalar[string]{"one line of at most 255 characters", parseDescription}
	// RFC 4271 section 4.2: zero or at least three seconds, in 16 bits.
	holdTime      = seconds("0s, or 3s to 65535s in whole seconds", 3*time.Second, 65535*time.Second, true)
	keepalive     = seconds("1s to 65534s in whole seconds, less than hold-time", time.Second, 65534*time.Second, true)
	auditInterval = seconds("0s, or 1s to 24h in whole seconds", time.Second, 24*time.Hour, true)
	sweepAfter    = seconds("1s to 1h in whole seconds", time.Second, time.Hour, false)
	probeInterval = seconds("0s, or 1s to 1h in whole seconds", time.Second, time.Hour, true)
	halfLife      = seconds("1m to 1h in whole seconds", time.Minute, time.Hour, false)
	maxSuppress   = seconds("1m to 12h in whole seconds", time.Minute, 12*time.Hour, false)
	persistTime   = seconds("0s, or 1s to 24h in whole seconds", time.Second, 24*time.Hour, true)
	// RFC 4724 section 3: 12 bits.
	restartTime        = seconds("1s to 4095s in whole seconds", time.Second, 4095*time.Second, false)
	staleTime          = seconds("1s to 24h in whole seconds", time.Second, 24*time.Hour, false)
	longLived          = seconds("0s, or 1s to 168h in whole seconds", time.Second, 168*time.Hour, true)
	limitIdle          = seconds("1s to 24h in whole seconds", time.Second, 24*time.Hour, false)
	bfdInterval        = milliseconds("10ms to 60s in whole milliseconds", 10*time.Millisecond, time.Minute)
	passwordFile       = scalar[string]{"absolute path of a file that others cannot read", parsePasswordFile}
	passwordCredential = scalar[string]{"name of a systemd credential of the unit", parsePasswordCredential}
	table              = scalar[uint32]{
		"main, default, a number from 1 to 4294967295 except 255 (local), or a name in iproute2's rt_tables", parseTable,
	}
	metric   = scalar[uint32]{"1 to 4294967295", parseMetric}
	protocol = scalar[uint8]{
		"5 to 255, a number that no other program puts on its routes", parseProtocol,
	}
	hostPort   = scalar[string]{`host:port, :port, or "off"`, parseHostPort}
	webConfig  = scalar[string]{"absolute path of a web configuration file of Prometheus' exporters, that others cannot read", parseWebConfig}
	socketPath = scalar[string]{"absolute path of at most 107 characters", parseSocketPath}
	logLevel   = scalar[slog.Level]{"debug, info, warn, error", parseLogLevel}
)

// number is a decimal number within bounds.
func number[V ~int | ~uint8 | ~uint16 | ~uint32](low, high V) scalar[V] {
	return scalar[V]{fmt.Sprintf("%d to %d", low, high), func(text string) (V, error) {
		n, err := parseUint(text)
		if err != nil {
			return 0, err
		}
		if n < uint64(low) || n > uint64(high) {
			return 0, fmt.Errorf("%d is out of range", n)
		}
		return V(n), nil
	}}
}

// oneOf is one of a few words.
func oneOf[V ~string](words ...V) scalar[V] {
	texts := make([]string, len(words))
	for i, w := range words {
		texts[i] = string(w)
	}
	return scalar[V]{strings.Join(texts, ", "), func(text string) (V, error) {
		if !slices.Contains(words, V(text)) {
			return "", fmt.Errorf("%q is not known here", text)
		}
		return V(text), nil
	}}
}

// seconds is a duration in whole seconds, as BGP has them on the wire.
func seconds(allowed string, low, high time.Duration, orZero bool) scalar[time.Duration] {
	return scalar[time.Duration]{allowed, func(text string) (time.Duration, error) {
		v, err := time.ParseDuration(text)
		switch {
		case err != nil && isDigits(text):
			return 0, fmt.Errorf("%s has no unit (did you mean %ss?)", text, text)
		case err != nil:
			return 0, fmt.Errorf("%q is not a duration such as 60s or 2m", text)
		case v%time.Second != 0:
			return 0, fmt.Errorf("%s is not in whole seconds", text)
		case v == 0 && orZero:
			return 0, nil
		case v < low || v > high:
			return 0, fmt.Errorf("%s is out of range", text)
		}
		return v, nil
	}}
}

// milliseconds is a duration as BFD has use for.
func milliseconds(allowed string, low, high time.Duration) scalar[time.Duration] {
	return scalar[time.Duration]{allowed, func(text string) (time.Duration, error) {
		v, err := time.ParseDuration(text)
		switch {
		case err != nil && isDigits(text):
			return 0, fmt.Errorf("%s has no unit (did you mean %sms?)", text, text)
		case err != nil:
			return 0, fmt.Errorf("%q is not a duration such as 300ms or 1s", text)
		case v%time.Millisecond != 0:
			return 0, fmt.Errorf("%s is not in whole milliseconds", text)
		case v < low || v > high:
			return 0, fmt.Errorf("%s is out of range", text)
		}
		return v, nil
	}}
}

func isDigits(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}

// parseUint takes plain decimals only: YAML reads 010 as eight or as ten, depending on its version.
func parseUint(text string) (uint64, error) {
	if !isDigits(text) || len(text) > 1 && text[0] == '0' {
		return 0, fmt.Errorf("%q is not a plain decimal number", text)
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil { // digits only: it is too large
		return 0, fmt.Errorf("%s is out of range", text)
	}
	return n, nil
}

// parseASN refuses what S4 refuses, for the local AS too.
func parseASN(text string) (uint32, error) {
	if high, low, ok := strings.Cut(text, "."); ok {
		h, errHigh := strconv.ParseUint(high, 10, 16)
		l, errLow := strconv.ParseUint(low, 10, 16)
		if errHigh == nil && errLow == nil {
			return 0, fmt.Errorf("%s is in asdot notation (did you mean %d?)", text, h<<16|l)
		}
	}
	n, err := parseUint(text)
	switch {
	case err != nil:
		return 0, err
	case n == 0:
		return 0, errors.New("AS 0 is reserved (RFC 7607)")
	case n == 23456:
		return 0, errors.New("AS 23456 is AS_TRANS, which stands for a 4-octet AS number (RFC 6793)")
	case n == 65535 || n == 4294967295:
		return 0, fmt.Errorf("AS %d is reserved (RFC 7300)", n)
	case n > 4294967295:
		return 0, fmt.Errorf("%d is out of range", n)
	}
	return uint32(n), nil
}

func parseAddr(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		if p, err := netip.ParsePrefix(text); err == nil {
			return a, fmt.Errorf("%s is a prefix (did you mean %s?)", text, p.Addr())
		}
		return a, fmt.Errorf("%q is not an IP address", text)
	case a.Is4In6():
		return a, fmt.Errorf("%s is an IPv4-mapped address (did you mean %s?)", a, a.Unmap())
	case a.Zone() != "":
		return a, fmt.Errorf("%s has a zone: link-local addresses are not supported", a)
	}
	return a, nil
}

func parseUnicast(text string) (netip.Addr, error) {
	a, err := parseAddr(text)
	if err != nil {
		return a, err
	}
	return a, checkUnicast(a)
}

// checkUnicast lets loopback pass, for labs, and 169.254.0.0/16, which clouds use for
// BGP over tunnels.
func checkUnicast(a netip.Addr) error {
	switch {
	case a.IsUnspecified():
		return fmt.Errorf("%s is the unspecified address", a)
	case a.IsMulticast():
		return fmt.Errorf("%s is a multicast address", a)
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("%s is the broadcast address", a)
	case a.Is6() && a.IsLinkLocalUnicast():
		return fmt.Errorf("%s is a link-local address, which means nothing to the other peers", a)
	}
	return nil
}

func parseListen(text string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(text)
	if err != nil {
		host := text
		if bare, ok := strings.CutPrefix(text, "["); ok && strings.HasSuffix(bare, "]") {
			host = strings.TrimSuffix(bare, "]")
		}
		a, err := netip.ParseAddr(host)
		if err != nil {
			return ap, fmt.Errorf("%q is neither an IP address nor address:port", text)
		}
		ap = netip.AddrPortFrom(a, bgpPort)
	}
	a, err := parseAddr(ap.Addr().String()) // a zone, an IPv4-mapped address
	switch {
	case err != nil:
		return ap, err
	case ap.Port() == 0:
		return ap, fmt.Errorf("%s has port 0", text)
	case a.IsUnspecified():
		return ap, nil
	}
	return ap, checkUnicast(a)
}

func parsePrefix(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
			return p, fmt.Errorf("%s has no length (did you mean %s/%d?)", text, a, a.BitLen())
		}
		return p, fmt.Errorf("%q is not a prefix", text)
	case p.Addr().Is4In6():
		return p, fmt.Errorf("%s is an IPv4-mapped prefix", text)
	case p != p.Masked():
		return p, fmt.Errorf("%s has host bits set (did you mean %s?)", text, p.Masked())
	}
	return p, nil
}

func parseVNetPrefix(text string) (netip.Prefix, error) {
	p, err := parsePrefix(text)
	switch {
	case err != nil:
		return p, err
	case p.Bits() == 0:
		// Everything is inside it: no route would ever be installed (S18).
		return p, fmt.Errorf("%s is the default route: nothing that peers announce could be installed", p)
	case p.Addr().IsLoopback():
		return p, fmt.Errorf("%s is loopback", p)
	}
	return p, checkUnicast(p.Addr())
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func parseName(text string) (string, error) {
	if !namePattern.MatchString(text) {
		return "", fmt.Errorf("%q is not a name", text)
	}
	if _, err := netip.ParseAddr(text); err == nil {
		// Commands take a peer's name or its address.
		return "", fmt.Errorf("%s is an address, which commands could not tell from another peer's", text)
	}
	return text, nil
}

func parseDescription(text string) (string, error) {
	if utf8.RuneCountInString(text) > 255 {
		return "", fmt.Errorf("has %d characters", utf8.RuneCountInString(text))
	}
	if !isPrintable(text) {
		return "", fmt.Errorf("%q has a character that cannot be printed", text)
	}
	return text, nil
}

func isPrintable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// parsePasswordFile does not repeat a text that is no path: it may be the secret itself.
func parsePasswordFile(text string) (string, error) {
	if !filepath.IsAbs(text) {
		return "", errors.New("is not an absolute path")
	}
	if !isPrintable(text) {
		return "", errors.New("has a character that cannot be printed")
	}
	return text, checkSecretFile(text)
}

// parsePasswordCredential finds a credential where systemd puts it (systemd.exec(5)).
// A directory loaded as NAME:DIRECTORY gives credentials called NAME_FILE.
func parsePasswordCredential(text string) (string, error) {
	if text == "" || text == "." || text == ".." || strings.Contains(text, "/") || !isPrintable(text) {
		return "", errors.New("is not the name of a credential")
	}
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return "", errors.New("no credentials were passed: CREDENTIALS_DIRECTORY is not set (a unit has LoadCredential=; elsewhere use password-file)")
	}
	path := filepath.Join(dir, text)
	return path, checkSecretFile(path)
}

// parseWebConfig looks into the file, and at the certificate and key that it names: what is
// wrong with them would else be found when nobody can scrape any more.
func parseWebConfig(text string) (string, error) {
	if _, err := parsePasswordFile(text); err != nil {
		return "", err
	}
	if err := web.Check(text); err != nil {
		return "", fmt.Errorf("%s: %w", text, err)
	}
	return text, nil
}

// sumFile tells the contents of secret files apart; one that cannot be read has been found
// out by checkSecretFile.
func sumFile(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

// checkSecretFile looks at a secret's file, not into it.
func checkSecretFile(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", path, plainPathError(err))
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s: is not a regular file", path)
	case info.Mode().Perm()&0o006 != 0:
		return fmt.Errorf("%s: has mode %04o and must not be readable by others, chmod 0640", path, info.Mode().Perm())
	case info.Size() == 0:
		return fmt.Errorf("%s: is empty", path)
	}
	// A reload is refused as a whole rather than found out half done.
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%s: %w: the daemon's user must be able to read it (chown nexthopd, chmod 0400)", path, plainPathError(err))
	}
	return f.Close()
}

func parseMetric(text string) (uint32, error) {
	n, err := parseUint(text)
	switch {
	case err != nil:
		return 0, err
	case n == 0:
		// S19. For IPv6 the kernel turns 0 into 1024 (net/ipv6/route.c, IP6_RT_PRIO_USER).
		return 0, errors.New("0 is the metric of routes that were added without one: ours would be in their place instead of below them")
	case n > 4294967295:
		return 0, fmt.Errorf("%d is out of range", n)
	}
	return uint32(n), nil
}

// protocolUsers are the route protocols of include/uapi/linux/rtnetlink.h. Those
// programs remove, when they start, what bears their number.
var protocolUsers = map[uint64]string{
	0: "unspec", 1: "ICMP redirects", 2: "the kernel", 3: "boot", 4: "static routes",
	8: "GateD", 9: "router advertisements", 10: "MRT", 11: "Zebra", 12: "BIRD", 13: "DECnet routing",
	14: "XORP", 15: "Netsukuku", 16: "DHCP", 17: "a multicast daemon", 18: "keepalived", 42: "Babel",
	84: "OVN", 99: "Open/R", 186: "FRR (BGP)", 187: "FRR (IS-IS)", 188: "FRR (OSPF)", 189: "FRR (RIP)",
	192: "FRR (EIGRP)",
}

func parseProtocol(text string) (uint8, error) {
	n, err := parseUint(text)
	if err != nil {
		return 0, err
	}
	if user, ok := protocolUsers[n]; ok {
		return 0, fmt.Errorf("%d is the protocol number of %s", n, user)
	}
	if n > 255 {
		return 0, fmt.Errorf("%d is out of range", n)
	}
	return uint8(n), nil
}

// parseHostPort returns "" for no listener.
func parseHostPort(text string) (string, error) {
	if text == "" || text == "off" {
		return "", nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", fmt.Errorf("%q is not host:port", text)
	}
	if n, err := parseUint(port); err != nil || n < 1 || n > 65535 {
		return "", fmt.Errorf("%q has no port from 1 to 65535", text)
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && !hostPattern.MatchString(host) {
		return "", fmt.Errorf("%q is neither an address nor a host name", host)
	}
	return text, nil
}

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)

func parseSocketPath(text string) (string, error) {
	switch {
	case !filepath.IsAbs(text) || strings.ContainsRune(text, 0):
		return "", fmt.Errorf("%q is not an absolute path", text)
	case filepath.Clean(text) != text || text == "/":
		return "", fmt.Errorf("%q is not the plain path of a file", text)
	case len(text) > 107: // unix(7): sun_path has 108 bytes with the NUL
		return "", fmt.Errorf("has %d characters", len(text))
	}
	return text, nil
}

func parseLogLevel(text string) (slog.Level, error) {
	switch text {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("%q is not known here", text)
}
