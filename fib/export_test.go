package fib

// QueueCap is the size of the memory behind the queue of routes.
func QueueCap(t *Table) int { return cap(t.pending) }
