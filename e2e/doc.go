// Package e2e holds the tests that run the built nexthopd against real BGP daemons
// in network namespaces, each named after the statements of the semantics that it
// covers (S1 to S38).
//
// Its folders: lab builds the networks, nva is a BGP speaker of our own that does
// exactly what it is told, demo is what "make demo" runs.
package e2e
