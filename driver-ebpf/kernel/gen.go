// SPDX-License-Identifier: Apache-2.0

package kernel

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package kernel -output-stem peek -no-global-types peek ../bpf/peek.bpf.c -- -O2 -Wall -Werror
