// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/fbpp-project/fbpp/tests/guest/memory"
)

// megabytes reads a size in MiB.
func megabytes(args []string) (int64, error) {
	if len(args) != 1 {
		return 0, fmt.Errorf("expected a size in MiB, got %q", args)
	}
	mib, err := strconv.ParseInt(args[0], 10, 32)
	if err != nil || mib < 1 {
		return 0, fmt.Errorf("size %q is not a number of MiB", args[0])
	}
	return mib << 20, nil
}

// fill writes memory and frees it.
func fill(args []string) error {
	bytes, err := megabytes(args)
	if err != nil {
		return err
	}
	block, err := memory.Fill(bytes, runtime.NumCPU())
	if err != nil {
		return err
	}
	if err := block.Free(); err != nil {
		return err
	}
	return printMemory()
}

// hold calls take to allocate memory, and keeps it until the standard input ends. It
// answers each line of the input.
func hold(args []string, take func(bytes int64) (*memory.Block, error)) error {
	bytes, err := megabytes(args)
	if err != nil {
		return err
	}
	block, err := take(bytes)
	if err != nil {
		return err
	}
	err = answerLines(func(string) (any, error) { return memory.ReadInfo() })
	if err != nil {
		return err
	}
	return block.Free()
}

// keep writes memory and keeps it.
func keep(args []string) error {
	return hold(args, func(bytes int64) (*memory.Block, error) {
		return memory.Fill(bytes, runtime.NumCPU())
	})
}

// fragment leaves the guest's free memory in small blocks, and keeps the rest.
func fragment(args []string) error { return hold(args, memory.Fragment) }

// cache reads files, and keeps them open until the standard input ends: the kernel
// drops the cached pages of a disk that is not open. It answers each line of the input with
// how many pages of each file are cached. "read FILE" reads a file again before.
func cache(paths []string) error {
	files := make(map[string]*os.File)
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		files[path] = f
		if err := readAll(f); err != nil {
			return err
		}
	}
	return answerLines(func(line string) (any, error) {
		if path, ok := strings.CutPrefix(line, "read "); ok && files[path] != nil {
			if err := readAll(files[path]); err != nil {
				return nil, err
			}
		}
		cached := make(map[string]int64)
		for path, f := range files {
			var err error
			if cached[path], err = memory.Resident(f); err != nil {
				return nil, err
			}
		}
		return cached, nil
	})
}

func readAll(f *os.File) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, f)
	return err
}

// swapOn has the kernel swap to a disk.
func swapOn(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("expected a disk, got %q", args)
	}
	return memory.SwapOn(args[0])
}

// zeroes checks whether new memory is zero.
func zeroes(args []string) error {
	bytes, err := megabytes(args)
	if err != nil {
		return err
	}
	z, err := memory.CheckZeroes(bytes)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(z)
}

// show prints a file, such as one of the kernel's.
func show(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("expected a file, got %q", args)
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(text)
	return err
}

func printMemory() error {
	info, err := memory.ReadInfo()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(info)
}

// integrity runs a [memory.Pool] until its standard input ends. It answers "status" at
// once, and "verify" after it has verified all of its memory. "pause" and "resume"
// stop and start the workers.
func integrity(args []string) error {
	flags := flag.NewFlagSet("integrity", flag.ContinueOnError)
	o := memory.PoolOptions{Workers: runtime.NumCPU()}
	flags.IntVar(&o.Pages, "pages", 16384, "most pages to have mapped")
	flags.Uint64Var(&o.Seed, "seed", 1, "decides the sequence of operations")
	flags.IntVar(&o.Rate, "rate", 0, "pages to write or verify in a second; 0: no limit")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pool, err := memory.NewPool(o)
	if err != nil {
		return err
	}
	var resume func()
	err = answerLines(func(order string) (any, error) {
		switch order {
		case "status":
			return pool.Status(), nil
		case "verify":
			if resume != nil {
				return nil, fmt.Errorf("the pool is paused")
			}
			return pool.Verify(), nil
		case "pause":
			if resume == nil {
				resume = pool.Pause()
			}
			return pool.Status(), nil
		case "resume":
			if resume != nil {
				resume()
				resume = nil
			}
			return pool.Status(), nil
		}
		return nil, fmt.Errorf("unknown order %q", order)
	})
	if resume != nil {
		resume()
	}
	if err != nil {
		return err
	}
	return pool.Close()
}

// answerLines answers each line of the input with one line of JSON.
func answerLines(answer func(line string) (any, error)) error {
	out := json.NewEncoder(os.Stdout)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		reply, err := answer(in.Text())
		if err != nil {
			return err
		}
		if err := out.Encode(reply); err != nil {
			return err
		}
	}
	return in.Err()
}
