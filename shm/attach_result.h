// How attaching to a segment can end, each way with its name and a sentence for people.

#pragma once

namespace apikey::shm {

/// How an attach ended. The values are part of the client's ABI (apikey_result).
enum class AttachResult : int {
    kOk = 0,
    kWaiting = 1,        ///< no daemon has been here yet
    kNotPermitted = 2,   ///< EACCES or EPERM on the directory or a file
    kNotADirectory = 3,  ///< the path is a link or no directory
    kForeignOwner = 4,   ///< owner is not the expected one, or differs from the directory's
    kUnsafeMode = 5,     ///< writable by somebody who must not write it
    kNotARegularFile = 6,
    kTruncated = 7,  ///< shorter than its header says
    kBadMagic = 8,
    kAbiMismatch = 9,
    kLayoutMismatch = 10,
    kBadGeometry = 11,    ///< an offset, count or stride does not fit
    kSuperseded = 12,     ///< the generation went away meanwhile; look again
    kNoDescriptors = 13,  ///< EMFILE or ENFILE
    kNoMemory = 14,
    kIoError = 15,
};

/// A sentence for people: what was found and what to do. Static storage.
const char* attach_text(AttachResult result);

}  // namespace apikey::shm
