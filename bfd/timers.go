package bfd

import "container/heap"

// timers is a heap of entries by their deadline.
type timers []*entry

// Len implements heap.Interface.
func (t timers) Len() int { return len(t) }

// Less implements heap.Interface.
func (t timers) Less(i, j int) bool { return t[i].deadline < t[j].deadline }

// Swap implements heap.Interface.
func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

// Push implements heap.Interface.
func (t *timers) Push(x any) {
	en := x.(*entry)
	en.index = len(*t)
	*t = append(*t, en)
}

// Pop implements heap.Interface.
func (t *timers) Pop() any {
	last := len(*t) - 1
	en := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	return en
}

func (t *timers) add(en *entry)    { heap.Push(t, en) }
func (t *timers) fix(en *entry)    { heap.Fix(t, en.index) }
func (t *timers) remove(en *entry) { heap.Remove(t, en.index) }
