// Package packaging holds what the packages are made of; see build and nfpm.yaml.
package packaging
