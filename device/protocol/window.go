// SPDX-License-Identifier: Apache-2.0

package protocol

// How a frontend fetches the hint window (docs/window.md): a private vhost-user
// request under a private protocol feature.
const (
	WindowProtocolFeature = 48
	WindowRequest         = 0x4642
)

// The window's versions, and the features of version 2.
const (
	WindowVersion1 = 1
	WindowVersion2 = 2

	WindowFeatureOutcome = 1 << 0 // the frontend tells the outcome of each migration
	WindowFeatureClasses = 1 << 1 // an answer may say in which order the rest is to be sent
	WindowFeaturePeek    = 1 << 2 // the frontend tells which pages were written
	WindowFeatureNeeds   = 1 << 3 // the frontend says whether an order is of use
)

// The request's payload of version 2 ({le32 version; le32 flags; le64
// features}), and the reply's ({le32 version; le32 flags; le64 size}, followed
// in version 2 by {le64 features}).
const (
	WindowRequestSize = 16
	WindowReplySize1  = 16
	WindowReplySize2  = 24
)

// Sizes in the window, in bytes. A window is a multiple of WindowHeaderSize
// long.
const (
	WindowHeaderSize = 4096
	WindowRangeSize  = 16
	WindowMinSize    = 2 * WindowHeaderSize
	WindowMaxSize    = 256 << 20
)

// WindowMagic begins every window: "FBPP".
const WindowMagic = 0x50504246

// Offsets of the header's fields. A comment names the version or the feature that
// a field belongs to.
const (
	WindowMagicOffset            = 0x000
	WindowVersionOffset          = 0x004
	WindowCapacityOffset         = 0x008
	WindowFeaturesOffset         = 0x010 // version 2
	WindowAskGenerationOffset    = 0x040
	WindowAskDeadlineOffset      = 0x048
	WindowCancelGenerationOffset = 0x050
	WindowAskFlagsOffset         = 0x058 // PEEK or NEEDS
	WindowBootOffset             = 0x05c // PEEK
	WindowVmcoreinfoOffset       = 0x060 // PEEK
	WindowDoneGenerationOffset   = 0x080
	WindowStatusOffset           = 0x088
	WindowFlagsOffset            = 0x08c
	WindowRangeCountOffset       = 0x090
	WindowRangeBytesOffset       = 0x098
	WindowTimesOffset            = 0x0a0 // version 1: WindowTimes of le32 each
	WindowSourceOffset           = 0x0c0 // version 2
	WindowEntryCountOffset       = 0x0d0 // version 2
	WindowHotCountOffset         = 0x0d8 // CLASSES
	WindowColdCountOffset        = 0x0e0 // CLASSES
	WindowEntriesOffset          = 0x200 // version 2
)

// Offsets of the outcome, which the frontend writes (version 2).
const (
	WindowOutcomeNumberOffset      = 0x100
	WindowOutcomeGenerationOffset  = 0x108
	WindowOutcomeMigrationOffset   = 0x110
	WindowOutcomeHintsOffset       = 0x114
	WindowOutcomeSkippedOffset     = 0x118
	WindowOutcomeTransferredOffset = 0x120
	WindowOutcomeTotalMSOffset     = 0x128
	WindowOutcomeDowntimeMSOffset  = 0x130
	WindowOutcomeOrderOffset       = 0x138 // 0 from older frontends
	WindowOutcomeHybridOffset      = 0x13c // 0 from older frontends
)

// The flags of a request.
const (
	WindowAskPaused = 1 << 0 // PEEK: the guest does not run
	WindowAskOrder  = 1 << 1 // NEEDS: an order is of use
)

// Offsets of a peek, which the backend writes, and of its answer, which the
// frontend writes (PEEK).
const (
	WindowPeekNumberOffset     = 0x140
	WindowPeekGenerationOffset = 0x148
	WindowPeekCountOffset      = 0x150
	WindowPeekAnsweredOffset   = 0x158
	WindowPeekStatusOffset     = 0x160
)

// An entry is a phase or a detail of the exchange: {char name[16]; le64 value; le32
// kind; le32 reserved}.
const (
	WindowNameSize   = 16
	WindowEntrySize  = 32
	WindowMaxEntries = 16

	WindowEntryPhase  = 0 // microseconds; phases follow one another
	WindowEntryDetail = 1 // the unit is in the name
)

// WindowTimes returns the names of the phases and details for which version 1 has
// fields, in the order of the fields. All are figures of the guest's driver.
func WindowTimes() [6]string {
	return [...]string{"wakeup", "walk", "transfer", "decode", "hold-max-us", "holds"}
}

// WindowTruncated is the flag of an answer that lacks some free memory.
const WindowTruncated = 1 << 0
