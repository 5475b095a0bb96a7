package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// output is buffered standard output that remembers why it failed, so that the broken
// pipe of `| head` is not mistaken for one of the daemon's socket.
type output struct {
	*bufio.Writer
	sink *sink
}

type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err != nil {
		s.err = err
	}
	return n, err
}

func newOutput(w io.Writer) *output {
	s := &sink{w: w}
	return &output{Writer: bufio.NewWriterSize(s, 64<<10), sink: s}
}

// readerGone tells whether whoever read our output has stopped reading.
func (o *output) readerGone() bool { return errors.Is(o.sink.err, syscall.EPIPE) }

// isTerminal tells whether w is a terminal: only then colour makes sense.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
