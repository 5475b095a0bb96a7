package bfd

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// shortSlice is the time slice of a thread that must run soon but not for long. Since
// Linux 6.12 (kernel/sched/fair.c, EEVDF) sched_setattr sets it for the normal policy,
// without a privilege; older kernels ignore it. Measured on 6.18, two cores, 8 busy
// threads of another process: the worst of 1,000 wake-ups came 5.1 ms late without it,
// 2.7 ms with it, 0.9 ms with SCHED_RR.
const shortSlice = 100_000 // nanoseconds

const thisThread = 0

// schedule gives a thread the real-time priority, 1 to 99, or the short slice where
// there is 0 or no permission: that needs CAP_SYS_NICE or a RLIMIT_RTPRIO of that much
// (LimitRTPRIO= of systemd, and not RestrictRealtime=). It returns what it achieved, and
// the attributes from before, nil if they are not known.
func schedule(thread, priority int) (got string, before *unix.SchedAttr) {
	before, err := unix.SchedGetAttr(thread, 0)
	if err != nil {
		return fmt.Sprintf("unknown: %v", err), nil
	}
	if priority > 0 {
		err = unix.SchedSetAttr(thread, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: uint32(priority)}, 0)
		if err == nil {
			return fmt.Sprintf("SCHED_RR %d", priority), before
		}
	}
	attr := *before
	attr.Size, attr.Runtime = unix.SizeofSchedAttr, shortSlice
	got = "normal, short slice"
	if e := unix.SchedSetAttr(thread, &attr, 0); e != nil {
		got = fmt.Sprintf("normal (short slice: %v)", e)
	}
	if err != nil {
		got += fmt.Sprintf("; SCHED_RR %d: %v", priority, err)
	}
	return got, before
}

// scheduleThread is schedule for the calling thread, which must be locked. The Go
// runtime starts no thread from a locked one, so none inherits it.
func scheduleThread(priority int) (got string, undo func()) {
	got, before := schedule(thisThread, priority)
	return got, func() {
		if before != nil {
			_ = unix.SchedSetAttr(thisThread, before, 0) // lowering is always allowed
		}
	}
}

// scheduleProcess is schedule for all threads of this process, and those to come, which
// inherit it. One important thread is not enough: the garbage collector stops the world
// by waiting for every thread, and each can hold a lock of the runtime; one of normal
// priority that the kernel has put aside then keeps the important one waiting. Seen:
// 400 ms, with the machine full of other work.
func scheduleProcess(priority int) error {
	done := map[string]bool{}
	for again := true; again; { // until no thread was started meanwhile by one not yet done
		again = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				return err
			}
			if !done[task.Name()] {
				// A refusal is told by Stats.Scheduling: the engine's thread got the same.
				schedule(tid, priority)
				done[task.Name()], again = true, true
			}
		}
	}
	return nil
}
