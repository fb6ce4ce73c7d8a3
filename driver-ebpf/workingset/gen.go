// SPDX-License-Identifier: Apache-2.0

package workingset

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package workingset -output-stem sampler -no-global-types sampler ../bpf/sampler.bpf.c -- -O2 -Wall -Werror
