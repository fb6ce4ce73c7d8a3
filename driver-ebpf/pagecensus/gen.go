// SPDX-License-Identifier: Apache-2.0

package pagecensus

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package pagecensus -output-stem census -no-global-types census ../bpf/census.bpf.c -- -O2 -Wall -Werror
