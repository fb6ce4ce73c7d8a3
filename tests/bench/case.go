// SPDX-License-Identifier: Apache-2.0

package main

import "strings"

// load is what a guest does with its memory before it migrates.
type load string

// The loads. The first three are those of the published measurements.
const (
	noLoad      load = "no load"
	midLoad     load = "mid load"
	highLoad    load = "high load"
	fresh       load = "fresh"
	fragmented  load = "fragmented"
	pageCache   load = "page cache"
	churning    load = "churning"
	database    load = "database"
	kernelBuild load = "kernel build"
)

func allLoads() []load {
	return []load{noLoad, midLoad, highLoad, fresh, fragmented, pageCache, churning, database,
		kernelBuild}
}

func paperLoads() []load { return []load{noLoad, midLoad, highLoad} }

// postcopyLoads are those with memory that a guest needs soon after it has moved.
func postcopyLoads() []load { return []load{midLoad, highLoad, pageCache, churning} }

// method is how a migration treats free memory.
type method string

// The methods.
const (
	stock         method = "stock"
	balloon1      method = "balloon 1 GiB" // the guest keeps as much
	balloon4      method = "balloon 4 GiB"
	freePageHint  method = "free-page-hint"
	freeReporting method = "free-page-reporting"
	fbpp          method = "fbpp"
	introspect    method = "introspect" // fbpp without an agent
	// These have another policy for cold cache than the two before.
	introspectLast method = "introspect, cache last"
	fbppDrop       method = "fbpp, cache drop"
	// This one has the guest sample its working set before. It makes a difference where
	// memory is sent in an order.
	fbppSample method = "fbpp, sample"
	// And this one takes what is written when the migration begins for what is hot.
	introspectWritten method = "introspect, written"
)

func allMethods() []method {
	return []method{stock, balloon1, balloon4, freePageHint, freeReporting, fbpp, introspect,
		introspectLast, fbppDrop}
}

// hints tells whether the method uses free page hints of fbpp.
func (m method) hints() bool { return m.asks() || m.introspects() }

// asks tells whether the method asks the guest's agent.
func (m method) asks() bool { return m == fbpp || m == fbppDrop || m == fbppSample }

// introspects tells whether the method looks into the guest from the host.
func (m method) introspects() bool {
	return m == introspect || m == introspectLast || m == introspectWritten
}

// link is the bandwidth limit of a migration, in bytes per second; 0 means no limit.
type link int64

// The links.
const (
	unlimited link = 0
	gigabit   link = 1 << 30 / 8
	gigabit10 link = 10 << 30 / 8
)

// String implements fmt.Stringer.
func (l link) String() string {
	switch l {
	case gigabit:
		return "1 Gib/s"
	case gigabit10:
		return "10 Gib/s"
	}
	return "unlimited"
}

// transport is the way in which QEMU sends memory. Postcopy and what is made of it are
// ways of their own.
type transport string

// The transports.
const (
	stream    transport = "stream"
	multifd   transport = "multifd"
	mappedRAM transport = "mapped-ram"

	postcopy      transport = "postcopy"               // switched at once
	postcopyLater transport = "precopy, then postcopy" // switched after the first pass
	hybrid        transport = "hybrid"                 // what is hot first, then postcopy

	handOver transport = "hand-over"        // memory stays in a pool
	arrival  transport = "hand-over, local" // and arrives from there in the destination's own
)

// postcopies tells whether the guest moves before all of its memory does.
func (t transport) postcopies() bool {
	return t == postcopy || t == postcopyLater || t == hybrid || t.handsOver()
}

// handsOver tells whether memory is in a pool that both sides reach.
func (t transport) handsOver() bool { return t == handOver || t == arrival }

// benchCase is one kind of migration. It is run several times.
type benchCase struct {
	Load      load      `json:"load"`
	Method    method    `json:"method"`
	Link      link      `json:"link_bytes_per_second"` // 0: unlimited
	Transport transport `json:"transport"`
}

// String implements fmt.Stringer.
func (c benchCase) String() string {
	words := []string{string(c.Load), string(c.Method)}
	if c.Link != unlimited {
		words = append(words, c.Link.String())
	}
	if c.Transport != stream {
		words = append(words, string(c.Transport))
	}
	return strings.Join(words, ", ")
}

// planned is a case with its number of rounds.
type planned struct {
	benchCase
	rounds int
}

// leadMethods are the most important methods: plain migration, QEMU's free page hinting,
// which has no cost before the migration, and the two methods of this project.
func leadMethods() []method { return []method{stock, freePageHint, fbpp, introspect} }

// fullMatrix is all cases, the most important first. At 10 Gib/s an emulated guest's
// migration is slower than the link, so a few methods are enough there.
func fullMatrix(p sizes, rounds int) []planned {
	var m []planned
	add := func(loads []load, methods []method, over link, by transport, rounds int) {
		for _, l := range loads {
			for _, how := range methods {
				if p.fits(l, how) {
					m = append(m, planned{benchCase{l, how, over, by}, rounds})
				}
			}
		}
	}
	add(allLoads(), allMethods(), unlimited, stream, rounds)
	add(paperLoads(), allMethods(), gigabit, stream, rounds)
	add([]load{noLoad}, leadMethods(), unlimited, multifd, 1)
	add([]load{noLoad}, leadMethods(), unlimited, mappedRAM, 1)
	add(paperLoads(), leadMethods(), gigabit10, stream, rounds)
	add([]load{pageCache, churning}, []method{stock, introspect}, gigabit, stream, rounds)
	for _, by := range []transport{postcopy, postcopyLater} {
		add(postcopyLoads(), []method{stock, introspect}, gigabit, by, rounds)
	}
	add(postcopyLoads(), []method{introspect, introspectWritten, fbppSample}, gigabit, hybrid, rounds)
	add(postcopyLoads(), []method{stock}, gigabit, handOver, rounds)
	add(postcopyLoads(), []method{stock, introspect, fbppSample}, gigabit, arrival, rounds)
	return m
}

// quickMatrix is a selection of the most important cases that runs in a few minutes.
func quickMatrix() []planned {
	return []planned{
		{benchCase{fresh, stock, unlimited, stream}, 1},
		{benchCase{fresh, fbpp, unlimited, stream}, 1},
		{benchCase{noLoad, stock, unlimited, stream}, 1},
		{benchCase{noLoad, freePageHint, unlimited, stream}, 1},
		{benchCase{noLoad, fbpp, unlimited, stream}, 1},
		{benchCase{noLoad, introspect, unlimited, stream}, 1},
		{benchCase{fragmented, introspect, unlimited, stream}, 1},
		{benchCase{fragmented, fbpp, unlimited, stream}, 1},
	}
}

// run is one migration of the plan.
type run struct {
	benchCase
	Round int `json:"round"` // counts from 1
}

// schedule interleaves the runs of the cases that share a link and a transport. So a
// change of the host's speed while they run affects all methods alike.
func schedule(m []planned) []run {
	var runs []run
	for len(m) > 0 {
		n := 1
		for n < len(m) && m[n].Link == m[0].Link && m[n].Transport == m[0].Transport {
			n++
		}
		runs = append(runs, inTurn(m[:n])...)
		m = m[n:]
	}
	return runs
}

// inTurn returns the first round of each case, then the second, and so on.
func inTurn(m []planned) []run {
	var runs []run
	for round := 1; ; round++ {
		before := len(runs)
		for _, p := range m {
			if round <= p.rounds {
				runs = append(runs, run{p.benchCase, round})
			}
		}
		if len(runs) == before {
			return runs
		}
	}
}
