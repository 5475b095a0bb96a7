// Package nva plays a network virtual appliance: a small BGP speaker that is
// independent of GoBGP, so that a mistake of GoBGP's encoder is not repeated by what
// tests it. The messages are pure functions from values to bytes and back; Session
// speaks over a connection and can be told to misbehave byte by byte; Simulator is a
// whole appliance that redials and remembers what it announces.
//
// It must not import GoBGP, and it decides nothing: what it hears it only lists.
package nva
