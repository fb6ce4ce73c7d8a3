// SPDX-License-Identifier: Apache-2.0

// Package program decides which programs of the host the guest takes, and loads them.
//
// The guest's owner writes a [Policy]. Without one nothing is taken. [Judge] holds an offer
// against it before a byte of the object is fetched, and [Limits] the object before it is
// loaded. Parsing and loading happen in a child process, see [Loader]: an object that hangs
// or crashes them ends the child, and not the agent.
package program
