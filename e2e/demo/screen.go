package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// screen writes what the demo shows; bold and colours only where they are welcome.
type screen struct {
	f      *os.File
	colour bool
}

func newScreen(f *os.File) *screen {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return &screen{f, err == nil && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func (s *screen) style(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s *screen) print(text string) {
	_, _ = fmt.Fprintln(s.f, text) // nowhere else to say that stdout is gone
}

// caption starts a step.
func (s *screen) caption(format string, args ...any) {
	s.print("\n" + s.style("1", "== "+fmt.Sprintf(format, args...)))
}

func (s *screen) say(format string, args ...any) {
	s.print(s.style("32", fmt.Sprintf(format, args...)))
}

func (s *screen) fail(err error) {
	s.print(s.style("1;31", "FAILED: "+err.Error()))
}

// command shows a command, where it ran, and what it printed.
func (s *screen) command(where, line, output string) {
	s.print(s.style("36", "["+where+"] $ "+line))
	for _, l := range strings.Split(strings.TrimRight(output, "\n"), "\n") {
		s.print("  " + strings.TrimRight(l, " \t"))
	}
}
