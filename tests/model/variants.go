// SPDX-License-Identifier: Apache-2.0

package model

// Variant is the model with one kind of dirty log, and with one fault or none.
type Variant struct {
	// Name is also the name of the counterexample's file.
	Name string
	// About describes the variant in a few words.
	About string
	// Defines are the preprocessor's, as fbpp.pml lists them.
	Defines []string
	// Loses says that a write must be lost: the variant has a fault.
	Loses bool
	// Live asks, instead of for lost writes, whether each migration completes.
	Live bool
}

// Variants returns all variants. A variant with a fault exists for each dirty log in which
// the fault matters. It has one migration if that is enough to lose a write.
func Variants() []Variant {
	const one, chunk, atOnce = "MIGRATIONS=1", "CHUNK_PAGES=2", "AT_ONCE"
	introspect := func(log string, more ...string) []string {
		return append([]string{log, "INTROSPECT", one}, more...)
	}
	postcopy := func(more ...string) []string {
		return append([]string{"LOG_KVM", "POSTCOPY", one}, more...)
	}
	arrives := func(more ...string) []string {
		return append([]string{"ARRIVES", atOnce, one}, more...)
	}
	handover := func(more ...string) []string { return append([]string{"HANDOVER"}, more...) }
	return []Variant{
		{Name: "kvm", About: "KVM, log initially set, a page a chunk", Defines: []string{"LOG_KVM"}},
		{Name: "kvm-chunk", About: "KVM, log initially set, two pages a chunk",
			Defines: []string{"LOG_KVM", chunk}},
		{Name: "kvm-eager", About: "KVM without manual protection", Defines: []string{"LOG_EAGER"}},
		{Name: "kvm-ring", About: "KVM, dirty ring", Defines: []string{"LOG_RING", one}},
		{Name: "tcg", About: "TCG", Defines: []string{"LOG_TCG", one}},
		{Name: "init-on-free", About: "a guest that takes free pages for zero",
			Defines: []string{"LOG_KVM", "INIT_ON_FREE"}},
		{Name: "later-round-armed", About: "asked in a later round, armed again",
			Defines: []string{"LOG_KVM", "LATER_ROUND_ARM", one}},
		{Name: "completes", About: "each migration completes",
			Defines: []string{"LOG_KVM", "LIVENESS", one}, Live: true},
		{Name: "introspect-kvm", About: "from the host, KVM, log initially set",
			Defines: introspect("LOG_KVM", atOnce)},
		{Name: "introspect-eager", About: "from the host, KVM without manual protection",
			Defines: introspect("LOG_EAGER", atOnce)},
		{Name: "introspect-ring", About: "from the host, KVM, dirty ring",
			Defines: introspect("LOG_RING", atOnce)},
		{Name: "introspect-tcg", About: "from the host, TCG",
			Defines: introspect("LOG_TCG", atOnce)},
		{Name: "introspect-reset", About: "from the host, KVM, the guest is reset",
			Defines: introspect("LOG_KVM", atOnce, "RESETS")},
		{Name: "introspect-rounds", About: "from the host, KVM, two pages a chunk, any rounds",
			Defines: introspect("LOG_KVM", chunk)},
		{Name: "postcopy", About: "postcopy at any time, two pages a chunk",
			Defines: postcopy(chunk)},
		{Name: "postcopy-resends", About: "postcopy, a recovery sends again what is zero there",
			Defines: postcopy(atOnce, "RECOVERY_RESENDS")},
		{Name: "arrives-kvm", About: "RAM arrives but for what is free, KVM, two pages a chunk",
			Defines: arrives("LOG_KVM", chunk)},
		{Name: "arrives-eager", About: "RAM arrives but for what is free, no manual protection",
			Defines: arrives("LOG_EAGER")},
		{Name: "arrives-ring", About: "RAM arrives but for what is free, dirty ring",
			Defines: arrives("LOG_RING")},
		{Name: "arrives-tcg", About: "RAM arrives but for what is free, TCG",
			Defines: arrives("LOG_TCG")},
		{Name: "arrives-introspect", About: "RAM arrives but for what is free, from the host",
			Defines: arrives("LOG_KVM", "INTROSPECT")},
		{Name: "handover", About: "RAM stays in a pool, with a lease", Defines: handover()},
		{Name: "arrival", About: "RAM arrives from a pool", Defines: handover("LOCAL")},

		{Name: "clear-at-hint", About: "no ARM, the log is cleared when the hint comes",
			Defines: []string{"LOG_KVM", "CLEAR_AT_HINT", one}, Loses: true},
		{Name: "walk-before-arm", About: "the guest looks before ARM",
			Defines: []string{"LOG_KVM", "WALK_BEFORE_ARM", one}, Loses: true},
		{Name: "sync-between", About: "a sync between ARM and the clear, KVM",
			Defines: []string{"LOG_KVM", "NO_SYNC_COUNT", chunk, one}, Loses: true},
		{Name: "sync-between-ring", About: "a sync between ARM and the clear, dirty ring",
			Defines: []string{"LOG_RING", "NO_SYNC_COUNT", one}, Loses: true},
		{Name: "late-accepted", About: "a late report is accepted",
			Defines: []string{"LOG_KVM", "LATE_ACCEPTED", chunk, one}, Loses: true},
		{Name: "later-round", About: "asked in a later round, not armed again",
			Defines: []string{"LOG_KVM", "LATER_ROUND", chunk, one}, Loses: true},
		{Name: "later-round-init-on-free", About: "asked in a later round, free pages taken for zero",
			Defines: []string{"LOG_KVM", "LATER_ROUND_ARM", "INIT_ON_FREE", one}, Loses: true},
		{Name: "old-report", About: "a report of the migration before is accepted",
			Defines: []string{"LOG_KVM", "NO_GENERATION"}, Loses: true},
		{Name: "counted-generations", About: "generations that each host counts from 1",
			Defines: []string{"LOG_KVM", "COUNTED"}, Loses: true},
		{Name: "tcg-stock", About: "TCG without the flush of patch 0001",
			Defines: []string{"LOG_TCG", "NO_TLB_FLUSH", one}, Loses: true},

		{Name: "peek-left-out", About: "from the host, no peek, KVM",
			Defines: introspect("LOG_KVM", atOnce, "PEEK_LEFT_OUT"), Loses: true},
		{Name: "peek-left-out-eager", About: "from the host, no peek, no manual protection",
			Defines: introspect("LOG_EAGER", atOnce, "PEEK_LEFT_OUT"), Loses: true},
		{Name: "peek-left-out-ring", About: "from the host, no peek, dirty ring",
			Defines: introspect("LOG_RING", atOnce, "PEEK_LEFT_OUT"), Loses: true},
		{Name: "peek-left-out-tcg", About: "from the host, no peek, TCG",
			Defines: introspect("LOG_TCG", atOnce, "PEEK_LEFT_OUT"), Loses: true},
		{Name: "peek-first", About: "from the host, the peek before the read, KVM",
			Defines: introspect("LOG_KVM", atOnce, "PEEK_FIRST"), Loses: true},
		{Name: "peek-first-tcg", About: "from the host, the peek before the read, TCG",
			Defines: introspect("LOG_TCG", atOnce, "PEEK_FIRST"), Loses: true},
		{Name: "peek-consumes", About: "from the host, the peek clears the log, KVM",
			Defines: introspect("LOG_KVM", atOnce, "PEEK_CONSUMES"), Loses: true},
		{Name: "peek-consumes-eager", About: "from the host, the peek keeps no bit",
			Defines: introspect("LOG_EAGER", atOnce, "PEEK_CONSUMES"), Loses: true},
		{Name: "peek-no-kick", About: "from the host, the peek waits for no CPU",
			Defines: introspect("LOG_KVM", atOnce, "PEEK_NO_KICK"), Loses: true},
		{Name: "read-before-arm", About: "from the host, read before ARM",
			Defines: introspect("LOG_KVM", atOnce, "READ_BEFORE_ARM"), Loses: true},
		{Name: "reset-not-told", About: "from the host, a reset that nobody tells of",
			Defines: introspect("LOG_KVM", atOnce, "RESETS", "RESET_NOT_TOLD"), Loses: true},

		{Name: "list-early", About: "postcopy, the list is made before the last sync",
			Defines: postcopy("LIST_EARLY"), Loses: true},
		{Name: "list-overtakes", About: "postcopy, the list comes before pages of precopy",
			Defines: postcopy("LIST_OVERTAKES"), Loses: true},
		{Name: "list-ignored", About: "postcopy, what is not received is taken for zero",
			Defines: postcopy("LIST_IGNORED"), Loses: true},
		{Name: "hint-after-list", About: "postcopy, an answer is used after the switch",
			Defines: postcopy(atOnce, "HINT_AFTER_LIST"), Loses: true},
		{Name: "recovery-forgets", About: "postcopy, a recovery forgets what was on its way",
			Defines: postcopy(atOnce, "RECOVERY_FORGETS"), Loses: true},
		{Name: "arrival-replaces", About: "postcopy, a page replaces what was written there",
			Defines: postcopy(atOnce, "RECOVERY_RESENDS", "ARRIVAL_REPLACES"), Loses: true},

		{Name: "arrives-watched-late", About: "RAM arrives, and is watched from the answer on, TCG",
			Defines: arrives("LOG_TCG", "WATCHED_LATE"), Loses: true},
		{Name: "arrives-watched-once", About: "RAM arrives, and later writes are not looked for",
			Defines: arrives("LOG_KVM", "WATCHED_ONCE"), Loses: true},
		{Name: "arrives-clear-at-hint", About: "RAM arrives, and the log is cleared late",
			Defines: arrives("LOG_KVM", chunk, "CLEAR_AT_HINT"), Loses: true},

		{Name: "handover-swap-in-two", About: "the lease is read, and then written",
			Defines: handover("SWAP_IN_TWO"), Loses: true},
		{Name: "handover-no-taking-back", About: "the source goes on without its lease",
			Defines: handover("NO_TAKING_BACK"), Loses: true},
		{Name: "handover-any-offer", About: "a destination takes a later offer than its own",
			Defines: handover("ANY_OFFER"), Loses: true},
		{Name: "handover-stop-late", About: "the source offers before it stops",
			Defines: handover("STOP_LATE"), Loses: true},
		{Name: "handover-from-the-dead", About: "the source takes from a destination that died",
			Defines: handover("FROM_THE_DEAD"), Loses: true},
		{Name: "handover-time-out", About: "a new VM takes from a holder that is silent",
			Defines: handover("TIME_OUT"), Loses: true},
		{Name: "handover-no-challenge", About: "the destination may have another file",
			Defines: handover("NO_CHALLENGE"), Loses: true},
		{Name: "arrival-read-early", About: "RAM arrives while the source runs",
			Defines: handover("LOCAL", "READ_EARLY"), Loses: true},
		{Name: "arrival-punch-early", About: "the pool is emptied before it is taken",
			Defines: handover("LOCAL", "PUNCH_EARLY"), Loses: true},
	}
}
