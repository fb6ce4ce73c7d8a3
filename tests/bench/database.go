// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// The database of the load of that name: Debian's Redis, with a socket of its own.
const (
	databaseSocket  = "/tmp/redis.sock"
	databaseAccount = 20_000 // keys that are written again and again
	databaseValue   = 4096   // bytes of each value
)

// transferScript moves an amount from one account to another, and writes into a value. The
// sum of all accounts stays zero, as a script runs without interruption.
const transferScript = `redis.call('INCR','debit:'..ARGV[1])` +
	` redis.call('DECR','credit:'..ARGV[1])` +
	` redis.call('SETRANGE','key:'..tonumber(ARGV[1]),8,ARGV[1]) return 1`

// sumScript returns how many accounts there are, and their sum.
const sumScript = `local n,sum=0,0 for _,side in ipairs({'debit:','credit:'}) do` +
	` for i=0,tonumber(ARGV[1])-1 do` +
	` local v=redis.call('GET',side..string.format('%012d',i))` +
	` if v then n=n+1 sum=sum+tonumber(v) end end end return n..' '..sum`

// databaseFiles returns the programs of the database, for a guest's /bin.
func databaseFiles(
	ctx context.Context, s guest.Series, say func(string),
) (map[string]string, error) {
	packages, err := guest.FetchPackages(ctx, s, say, "redis-server")
	if err != nil {
		return nil, err
	}
	programs, err := packages.Programs("redis-server", "redis-cli", "redis-benchmark")
	if err != nil {
		return nil, err
	}
	files := make(map[string]string)
	for path, source := range programs {
		files["/"+path] = source
	}
	return files, nil
}

// startDatabase starts the database, fills it with so much memory, and keeps clients at
// work on it.
func startDatabase(ctx context.Context, v *vm.VM, mib int) error {
	err := v.Spawn(ctx, "redis", "/bin/redis-server", "--port", "0",
		"--unixsocket", databaseSocket, "--save", "", "--enable-debug-command", "yes")
	if err != nil {
		return err
	}
	if err := awaitDatabase(ctx, v); err != nil {
		return err
	}
	values := fmt.Sprint(mib << 20 / databaseValue)
	_, err = v.Run(ctx, "/bin/redis-cli", "-s", databaseSocket,
		"DEBUG", "POPULATE", values, "key", fmt.Sprint(databaseValue))
	if err != nil {
		return fmt.Errorf("fill the database: %w", err)
	}
	return v.Spawn(ctx, "clients", "/bin/redis-benchmark", "-s", databaseSocket, "-q", "-c", "4",
		"-r", fmt.Sprint(databaseAccount), "-n", "1000000000",
		"EVAL", transferScript, "0", "__rand_int__")
}

// awaitDatabase waits until the database answers.
func awaitDatabase(ctx context.Context, v *vm.VM) error {
	for {
		out, err := v.Run(ctx, "/bin/redis-cli", "-s", databaseSocket, "PING")
		if err == nil && strings.TrimSpace(out) == "PONG" {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for the database: %s: %w", out, context.Cause(ctx))
		}
	}
}

// checkDatabase checks that no transfer was lost or made twice in part.
func checkDatabase(ctx context.Context, v *vm.VM) error {
	out, err := v.Run(ctx, "/bin/redis-cli", "-s", databaseSocket, "EVAL", sumScript, "0",
		fmt.Sprint(databaseAccount))
	if err != nil {
		return fmt.Errorf("check the database: %w", err)
	}
	var accounts, sum int64
	if _, err := fmt.Sscan(out, &accounts, &sum); err != nil {
		return fmt.Errorf("check the database: it says %q: %w", out, err)
	}
	if accounts == 0 || sum != 0 {
		return fmt.Errorf("check the database: the sum of %d accounts is %d, not 0", accounts, sum)
	}
	return nil
}
