package main

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/nexthopd/nexthopd/agent/journal"
)

// notifier tells systemd how we are (sd_notify(3)). Where no service manager listens it
// does nothing. Its methods may be called from any goroutine.
type notifier struct {
	send func(state string) error
	log  *slog.Logger
}

func newNotifier(log *slog.Logger) *notifier {
	return &notifier{log: log, send: func(state string) error {
		_, err := daemon.SdNotify(false, state)
		return err
	}}
}

// ready says that the sessions can come up and the FIB is adopted, or that a reload is
// done; status is one line for `systemctl status`.
func (n *notifier) ready(status string) {
	n.notify(daemon.SdNotifyReady, statusLine(status))
}

// status changes the line in `systemctl status`.
func (n *notifier) status(status string) { n.notify(statusLine(status)) }

// stopping says that the end has begun.
func (n *notifier) stopping() { n.notify(daemon.SdNotifyStopping, statusLine("stopping")) }

// reloading says that the configuration is read again; ready follows in any case. The
// time tells systemd which reload is meant (Type=notify-reload, systemd 253).
func (n *notifier) reloading() {
	n.notify(daemon.SdNotifyReloading, strings.TrimSpace(daemon.SdNotifyMonotonicUsec()), statusLine("reloading"))
}

// watchdog feeds systemd's watchdog for as long as healthy has nothing to complain about,
// and returns when ctx ends. Twice per interval, as sd_watchdog_enabled(3) advises. When
// it stops, systemd kills and restarts us; the log has said why by then.
func (n *notifier) watchdog(ctx context.Context, healthy func() error) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		n.log.Warn("watchdog is off", "err", err)
	}
	if interval == 0 {
		return
	}
	t := time.NewTicker(interval / 2)
	defer t.Stop()
	sick := false
	for {
		err := healthy()
		switch {
		case err == nil:
			n.notify(daemon.SdNotifyWatchdog)
		case !sick:
			journal.Log(n.log, journal.Unhealthy, slog.Any("err", err), slog.Duration("after", interval))
		}
		sick = err != nil
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (n *notifier) notify(lines ...string) {
	if err := n.send(strings.Join(lines, "\n")); err != nil {
		n.log.Warn("service manager cannot be told", "err", err)
	}
}

// statusLine keeps the text on one line: a line of its own would be another assignment.
func statusLine(s string) string { return "STATUS=" + strings.Join(strings.Fields(s), " ") }
