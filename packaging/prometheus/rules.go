// Package prometheus holds the alert rules that the packages bring.
package prometheus

import _ "embed"

// Rules is the rule file.
//
//go:embed nexthopd.rules.yml
var Rules []byte
