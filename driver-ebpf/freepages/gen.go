// SPDX-License-Identifier: Apache-2.0

package freepages

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64 -go-package freepages -output-stem walk -no-global-types walk ../bpf/walk.bpf.c -- -O2 -Wall -Werror
