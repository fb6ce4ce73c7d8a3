#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Stands in for systemctl on a host of the test, where no systemd runs: starts and stops
# fbppd with the command line, user, folders and options of the unit. It does not confine
# fbppd as the unit does, nor restart it. systemctl start|stop fbppd@NAME.service
set -euo pipefail
verb=$1 unit=$2
[ ! -e /run/no-systemd ] || exit 1 # the test has broken it
instance=${unit#fbppd@}
instance=${instance%.service}
process=/run/systemctl-$instance

# setting NAME: prints a setting of the unit and its drop-ins. The last one counts.
setting() {
	local value
	value=$(sed -e ':a' -e '/\\$/{N;s/\\\n//;ba' -e '}' \
		/etc/systemd/system/fbppd@.service /etc/systemd/system/fbppd@.service.d/*.conf |
		sed -n "s/^$1=//p" | tail -n 1)
	echo "${value//%i/"$instance"}"
}

running() { [ -e "$process" ] && kill -0 "$(cat "$process")" 2>/dev/null; }

# launch runs fbppd, also when nobody waits for that any more.
launch() {
	local user words word command=()
	user=$(setting User)
	umask "$(setting UMask)"
	install -d -m 755 /run/fbpp /var/lib/fbpp
	install -d -m "$(setting RuntimeDirectoryMode)" -o "$user" "/run/$(setting RuntimeDirectory)"
	install -d -m "$(setting StateDirectoryMode)" -o "$user" "/var/lib/$(setting StateDirectory)"
	file=$(setting EnvironmentFile)
	declare "$(setting Environment)" # or the shell ends for a variable that is unset
	# shellcheck source=/dev/null
	[ ! -e "${file#-}" ] || . "${file#-}"
	read -ra words < <(setting ExecStart)
	for word in "${words[@]}"; do
		# shellcheck disable=SC2016,SC2206 # systemd splits such a word, too
		if [ "$word" = '$FBPPD_OPTIONS' ]; then
			command+=($FBPPD_OPTIONS)
		else
			command+=("$word")
		fi
	done
	echo $$ >"$process"
	exec setpriv --reuid="$user" --regid="$(setting Group)" --clear-groups -- "${command[@]}"
}

# start has launch run, and waits until fbppd says that it is ready (Type=notify): its
# control socket is the last that it opens.
start() {
	local socket job
	socket=/run/$(setting RuntimeDirectory)/control.sock
	setsid "$0" launch "$unit" >>/var/log/fbppd.log 2>&1 </dev/null &
	job=$!
	until [ -S "$socket" ]; do
		kill -0 "$job" 2>/dev/null || return 1
		sleep 0.1
	done
}

stop() {
	kill "$(cat "$process")"
	while running; do sleep 0.05; done
	rm -rf "$process" "/run/$(setting RuntimeDirectory)"
}

case $verb in
start) running || start ;;
launch) launch ;;
stop) ! running || stop ;;
*) exit 1 ;;
esac
