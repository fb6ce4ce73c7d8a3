// SPDX-License-Identifier: Apache-2.0

package freepages

// The architectures are named here and by the suffixes of files: *_amd64.go and
// *_other.go.
//
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -go-package freepages -output-stem walk -no-global-types walk ../bpf/walk.bpf.c -- -O2 -Wall -Werror
