package bgp

import (
	"fmt"
	"strings"
	"time"
)

// notification is a NOTIFICATION message as GoBGP logged it.
type notification struct {
	at            time.Time
	sent          bool
	code, subcode uint8  // 0: there was none
	communication string // RFC 9003
	hard          bool   // it came inside a Cease/Hard Reset
}

// unwrap takes a NOTIFICATION out of the Hard Reset that carries it (RFC 8538 section
// 3.1): that is how FRR says Administrative Shutdown to who offers graceful restart.
func (n notification) unwrap(data []byte) notification {
	if n.code != codeCease || n.subcode != ceaseHardReset || len(data) < 2 {
		return n
	}
	n.hard, n.code, n.subcode = true, data[0], data[1]
	if rest := data[2:]; n.code == codeCease && (n.subcode == ceaseShutdown || n.subcode == ceaseReset) &&
		len(rest) > 0 && int(rest[0]) < len(rest) {
		n.communication = printable(string(rest[1 : 1+int(rest[0])]))
	}
	return n
}

func (n notification) String() string {
	verb := "received"
	if n.sent {
		verb = "sent"
	}
	text := "NOTIFICATION " + verb + ": " + notificationName(n.code, n.subcode)
	if n.hard {
		text += ", as a Hard Reset"
	}
	if n.communication != "" {
		text += ": " + n.communication
	}
	return text
}

// The codes and subcodes of NOTIFICATION that have a part in what we do.
const (
	codeOpen      = 2
	codeHoldTimer = 4
	codeFSM       = 5
	codeCease     = 6

	openBadPeerAS     = 2
	openRoleMismatch  = 11
	ceaseMaxPrefixes  = 1
	ceaseShutdown     = 2
	ceaseDeconfigured = 3
	ceaseReset        = 4
	ceaseHardReset    = 9
	ceaseBFDDown      = 10
)

// codeNames are the error codes by number: RFC 4271 section 4.5, RFC 7313, RFC 9687.
var codeNames = [...]string{
	1:             "Message Header Error",
	codeOpen:      "OPEN Message Error",
	3:             "UPDATE Message Error",
	codeHoldTimer: "Hold Timer Expired",
	codeFSM:       "Finite State Machine Error",
	codeCease:     "Cease",
	7:             "ROUTE-REFRESH Message Error",
	8:             "Send Hold Timer Expired",
}

// subcodeNames are the error subcodes by code and number.
var subcodeNames = [...][]string{
	1: {1: "Connection Not Synchronized", 2: "Bad Message Length", 3: "Bad Message Type"},
	codeOpen: { // RFC 5492 for 7, RFC 9234 for 11; 5 is deprecated
		1:                "Unsupported Version Number",
		openBadPeerAS:    "Bad Peer AS",
		3:                "Bad BGP Identifier",
		4:                "Unsupported Optional Parameter",
		5:                "Authentication Failure",
		6:                "Unacceptable Hold Time",
		7:                "Unsupported Capability",
		openRoleMismatch: "Role Mismatch",
	},
	3: {
		1:  "Malformed Attribute List",
		2:  "Unrecognized Well-known Attribute",
		3:  "Missing Well-known Attribute",
		4:  "Attribute Flags Error",
		5:  "Attribute Length Error",
		6:  "Invalid ORIGIN Attribute",
		7:  "AS Routing Loop",
		8:  "Invalid NEXT_HOP Attribute",
		9:  "Optional Attribute Error",
		10: "Invalid Network Field",
		11: "Malformed AS_PATH",
	},
	codeFSM: { // RFC 6608
		1: "Receive Unexpected Message in OpenSent State",
		2: "Receive Unexpected Message in OpenConfirm State",
		3: "Receive Unexpected Message in Established State",
	},
	codeCease: { // RFC 4486, RFC 8538 for 9, RFC 9384 for 10
		ceaseMaxPrefixes:  "Maximum Number of Prefixes Reached",
		ceaseShutdown:     "Administrative Shutdown",
		ceaseDeconfigured: "Peer De-configured",
		ceaseReset:        "Administrative Reset",
		5:                 "Connection Rejected",
		6:                 "Other Configuration Change",
		7:                 "Connection Collision Resolution",
		8:                 "Out of Resources",
		ceaseHardReset:    "Hard Reset",
		ceaseBFDDown:      "BFD Down",
	},
	7: {1: "Invalid Message Length"},
}

// notificationName writes "Cease/Administrative Shutdown (6/2)".
func notificationName(code, subcode uint8) string {
	name := fmt.Sprintf("code %d", code)
	if int(code) < len(codeNames) && codeNames[code] != "" {
		name = codeNames[code]
	}
	if int(code) < len(subcodeNames) && int(subcode) < len(subcodeNames[code]) && subcodeNames[code][subcode] != "" {
		name += "/" + subcodeNames[code][subcode]
	}
	return fmt.Sprintf("%s (%d/%d)", name, code, subcode)
}

// down is the end of an established session, as GoBGP logged it before it walked over
// the peer's paths.
type down struct {
	reason   DownReason
	graceful bool // the paths of at least one family stay
	forget   bool // GoBGP keeps them, and should not
}

// The words of fsmStateReason.String in GoBGP's pkg/server/fsm.go; a NOTIFICATION's has
// its code behind it.
const (
	fsmAdminDown     = "admin-down"
	fsmReadFailed    = "read-failed"
	fsmWriteFailed   = "write-failed"
	fsmSent          = "notification-sent"
	fsmReceived      = "notification-received"
	fsmHoldTimer     = "hold-timer-expired"
	fsmRestartTimer  = "restart-timer-expired"
	fsmGraceful      = "graceful-restart"
	fsmInvalid       = "invalid-msg"
	fsmHardReset     = "hard-reset"
	fsmBadPeerAS     = "bad-peer-as"
	fsmUnknown       = "unknown" // the peer was deleted: fsmDeConfigured has no word
	holdTimerText    = "the hold timer expired: nothing was heard from the peer"
	lostText         = "the peer closed the connection, or it broke"
	deconfiguredText = "the peer was removed from the configuration"
)

// downReason says why a session, or an attempt at one, ended. reason is GoBGP's word,
// expect what we intend where we end it ourselves. GoBGP tells of a graceful restart in
// place of its cause, so that comes from the records before.
func downReason(reason string, n notification, holdExpired bool, expect DownReason) DownReason {
	word, _, _ := strings.Cut(reason, " ")
	switch {
	case word == fsmAdminDown && expect.Cause != "", n.sent && n.code == codeCease && expect.Cause != "",
		n.sent && n.code == codeOpen && n.subcode == openRoleMismatch && expect.Cause != "":
		d := expect
		if d.Cause == "operator" {
			d.Text = "by the operator"
			if expect.Text != "" {
				d.Text += ": " + expect.Text
			}
		}
		d.Code, d.Subcode = n.code, n.subcode
		return d
	case word == fsmAdminDown:
		return DownReason{Cause: "operator", Text: "by the operator"}
	case word == fsmHoldTimer || holdExpired || n.sent && n.code == codeHoldTimer:
		return DownReason{Cause: "hold-timer", Text: holdTimerText, Code: codeHoldTimer}
	case word == fsmBadPeerAS || n.sent && n.code == codeOpen && n.subcode == openBadPeerAS:
		return DownReason{
			Cause: "bad-peer-as", Text: "the peer's OPEN has another ASN than the one configured here",
			Code: codeOpen, Subcode: openBadPeerAS,
		}
	case word == fsmUnknown && !n.sent:
		return DownReason{Cause: "deconfigured", Text: deconfiguredText}
	case n.code != 0 && n.sent:
		d := DownReason{Cause: "notification-sent", Text: n.String(), Code: n.code, Subcode: n.subcode}
		switch {
		case n.code == codeCease && n.subcode == ceaseMaxPrefixes:
			d.Cause = "prefix-limit"
		case n.code == codeCease && n.subcode == ceaseDeconfigured:
			d.Cause = "deconfigured"
		case n.code == codeFSM && word == fsmInvalid:
			// GoBGP takes a NOTIFICATION in place of an OPEN for one (handleOpen).
			d.Text += "; the peer answered our OPEN with something else, most likely a refusal: does it have this host's address and ASN configured?"
		}
		return d
	case n.code != 0:
		return DownReason{Cause: "notification-received", Text: n.String(), Code: n.code, Subcode: n.subcode}
	case word == fsmReadFailed || word == fsmWriteFailed || word == fsmGraceful:
		return DownReason{Cause: "connection-lost", Text: lostText}
	case word == fsmRestartTimer:
		return DownReason{Cause: fsmGraceful, Text: "the peer did not come back within its restart time"}
	}
	return DownReason{Cause: "unknown", Text: reason}
}
