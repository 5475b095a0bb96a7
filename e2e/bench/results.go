package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"
)

// results is what a run of the benchmark leaves in its file.
type results struct {
	At       time.Time         `json:"at"`
	Kernel   string            `json:"kernel"`
	CPUs     int               `json:"cpus"`
	CPU      string            `json:"cpu"`
	Versions map[string]string `json:"versions"` // by column
	Sizes    []int             `json:"sizes"`
	Runs     int               `json:"runs"`
	// Values holds every run's value; times are in seconds, memory is in bytes.
	Values []value `json:"values"`
	// Failed tells which scenarios broke off, and why.
	Failed []string `json:"failed,omitempty"`
	// Own is the CPU time of the benchmark itself (feeders, observer, traffic) as a share
	// of its wall-clock time on one CPU.
	Own float64 `json:"own"`
}

// value is one figure of one run.
type value struct {
	Column string  `json:"column"`
	N      int     `json:"n"`
	Run    int     `json:"run"`
	Row    string  `json:"row"`
	Value  float64 `json:"value"`
}

// median of a row's runs; ok is false where there is none.
func (r *results) median(column string, n int, row string) (m float64, ok bool) {
	var all []float64
	for _, v := range r.Values {
		if v.Column == column && v.N == n && v.Row == row {
			all = append(all, v.Value)
		}
	}
	if len(all) == 0 {
		return 0, false
	}
	slices.Sort(all)
	if len(all)%2 == 0 {
		return (all[len(all)/2-1] + all[len(all)/2]) / 2, true
	}
	return all[len(all)/2], true
}

func (r *results) write(file string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

func readResults(file string) (*results, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := &results{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}
