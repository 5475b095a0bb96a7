package kernel

import (
	"errors"
	"fmt"

	"github.com/nexthopd/nexthopd/fib"
	"golang.org/x/sys/unix"
)

// sizeofRuleHdr is struct fib_rule_hdr of linux/fib_rules.h, ruleInvert its FIB_RULE_INVERT.
const (
	sizeofRuleHdr = 12
	ruleInvert    = 0x2
)

func dumpRules(family uint8) dumpRequest {
	return func(e *encoder) {
		m := e.begin(unix.RTM_GETRULE, unix.NLM_F_DUMP)
		e.buf = append(e.buf, make([]byte, sizeofRuleHdr)...)
		e.buf[len(e.buf)-sizeofRuleHdr] = family
		e.end(m)
	}
}

// Rules reads the routing policy rules of both families, in the kernel's order. It
// belongs to the goroutine that Dump belongs to.
func (h *Handle) Rules() ([]fib.Rule, error) {
	var rules []fib.Rule
	err := retryInterrupted("rules", func() error {
		rules = rules[:0]
		for _, family := range [...]uint8{unix.AF_INET, unix.AF_INET6} {
			err := h.dump(dumpRules(family), func(typ uint16, body []byte) error {
				if typ != unix.RTM_NEWRULE {
					return nil
				}
				r, err := parseRule(body)
				if err != nil {
					return err
				}
				rules = append(rules, r)
				return nil
			})
			// EAFNOSUPPORT, EOPNOTSUPP: a kernel without IPv6, or without policy routing.
			if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
				return fmt.Errorf("family %d: %w", family, err)
			}
		}
		return nil
	})
	return rules, err
}

// parseRule reads an RTM_NEWRULE.
func parseRule(b []byte) (r fib.Rule, err error) {
	if len(b) < sizeofRuleHdr {
		return r, errBadMessage
	}
	// dst_len, src_len and tos select, and so does an inverted rule without any.
	r.IPv6 = b[0] == unix.AF_INET6
	r.All = b[1] == 0 && b[2] == 0 && b[3] == 0 && native.Uint32(b[8:])&ruleInvert == 0
	r.Table = uint32(b[4])
	r.Lookup = b[7] == unix.FR_ACT_TO_TBL
	a := attrs{b: b[sizeofRuleHdr:]}
	for a.next() {
		switch a.typ {
		case unix.FRA_PRIORITY:
			r.Priority = a.u32()
		case unix.FRA_TABLE:
			r.Table = a.u32()
		case unix.FRA_L3MDEV:
			r.VRF = len(a.val) == 1 && a.val[0] != 0
			r.All = r.All && !r.VRF
		case unix.FRA_SUPPRESS_PREFIXLEN, unix.FRA_SUPPRESS_IFGROUP:
			r.All = r.All && a.u32() == ^uint32(0) // -1: suppresses nothing
		case unix.FRA_FWMARK, unix.FRA_TUN_ID, unix.FRA_IIFNAME, unix.FRA_OIFNAME,
			unix.FRA_UID_RANGE, unix.FRA_IP_PROTO, unix.FRA_SPORT_RANGE, unix.FRA_DPORT_RANGE:
			r.All = false
		default:
			// What newer kernels have selects, too: FRA_DSCP, FRA_FLOWLABEL and their masks.
			r.All = r.All && a.typ <= unix.FRA_DPORT_RANGE
		}
	}
	return r, a.err
}
