//go:build tools

// Package tools names what is built from this module; its version is go.mod's.
package tools

import _ "github.com/coredns/coredns"
