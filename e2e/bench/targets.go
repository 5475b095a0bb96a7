package main

import (
	"fmt"
	"strings"
)

// million is the size that BENCH=full adds.
const million = 1_000_000

// target is a figure that we want to reach.
type target struct {
	what, text string
	sizes      []int
	// judge returns what was measured, in words, and whether the target is met; an empty
	// text when it was not measured at this size.
	judge func(r *results, n int) (measured string, met bool)
}

var targets = []target{
	{"failover by session reset, last packet through the dead NVA", "at most 20 ms, and twice the figure at 1k", []int{million}, constant("reset")},
	{"active/passive failover", "the same", []int{million}, constant("backup")},
	{"silent death with BFD 300 ms x 3", "at most 1.0 s", []int{100_000}, bound("silent", 1.0)},
	{"silent death with BFD 50 ms x 3", "at most 200 ms", []int{100_000}, bound("silent50", 0.2)},
	{"load", "at most 1.0 x BIRD 2's time", []int{100_000, million}, atMost("load", "bird")},
	{"prepend", "at most 1.0 x FRR's time", []int{100_000}, atMost("prepend", "frr")},
	{"withdraw", "at most 1.0 x FRR's time", []int{100_000}, atMost("withdraw", "frr")},
	{"FIB writer alone, insert by group", "at least 0.8 x the floor's rate", []int{100_000}, floor},
	{"resident memory, steady", "at most 2.5 GB", []int{million}, bound("rss-steady", 2.5e9)},
	{"repair of a flushed table", "at most 100 ms", []int{repairN}, bound("repair", 0.1)},
	{"packets lost by SIGKILL and start", "0", []int{100_000}, bound("kill-lost", 0)},
	{"packets lost by SIGTERM and start", "0", []int{100_000}, bound("term-lost", 0)},
}

// line is the target's line of the report. Where the size that it is set for was not
// measured, the largest smaller one stands in, and the line says so.
func (t target) line(r *results) string {
	var out strings.Builder
	for _, n := range t.sizes {
		size := n
		measured, met := t.judge(r, n)
		for i := len(r.Sizes) - 1; measured == "" && i >= 0; i-- {
			if size = r.Sizes[i]; size < n {
				measured, met = t.judge(r, size)
			}
		}
		mark := "**missed**"
		switch {
		case measured == "":
			measured, mark = "not measured", ""
		case met:
			mark = "met"
		}
		if mark != "" && size != n {
			mark += " at " + thousands(size)
		}
		fmt.Fprintf(&out, "| %s, N = %s | %s | %s | %s |\n", t.what, thousands(n), t.text, measured, mark)
	}
	return out.String()
}

func rowOf(key string) row {
	for _, r := range rows {
		if r.key == key {
			return r
		}
	}
	panic("bug: no row " + key)
}

func bound(key string, most float64) func(*results, int) (string, bool) {
	return func(r *results, n int) (string, bool) {
		v, ok := r.median(contenders[0].name, n, key)
		if !ok {
			return "", false
		}
		return rowOf(key).format(v), v <= most
	}
}

func atMost(key, peer string) func(*results, int) (string, bool) {
	return func(r *results, n int) (string, bool) {
		ours, ok := r.median(contenders[0].name, n, key)
		theirs, has := r.median(peer, n, key)
		if !ok || !has {
			return "", false
		}
		return ratio(ours, theirs) + " x", ours <= theirs
	}
}

// chance is what figures of the traffic differ by for no reason of the daemon's: packets
// are sent every millisecond, on a machine that has other work too.
const chance = 0.0025

// constant judges a failover: short, and no longer than with a small table.
func constant(key string) func(*results, int) (string, bool) {
	return func(r *results, n int) (string, bool) {
		v, ok := r.median(contenders[0].name, n, key)
		small, has := r.median(contenders[0].name, 1000, key)
		if !ok {
			return "", false
		}
		text := rowOf(key).format(v)
		if has {
			text += ", " + rowOf(key).format(small) + " at 1k"
		}
		return text, v <= 0.020 && (!has || v <= 2*max(small, chance))
	}
}

func floor(r *results, n int) (string, bool) {
	w, ok := r.median(writerColumn, n, "writer-insert")
	f, has := r.median(writerColumn, n, "floor-insert")
	if !ok || !has {
		return "", false
	}
	return fmt.Sprintf("%.2f x", w/f), w >= 0.8*f
}
