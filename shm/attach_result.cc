#include "shm/attach_result.h"

namespace apikey::shm {

const char* attach_text(AttachResult result) {
    switch (result) {
        case AttachResult::kOk:
            return "attached";
        case AttachResult::kWaiting:
            return "no table yet: start apikeyd for this instance, or check the directory's path";
        case AttachResult::kNotPermitted:
            return "permission denied: add this process's user to the clients' group of the instance";
        case AttachResult::kNotADirectory:
            return "the instance's path is not a directory (links are not followed)";
        case AttachResult::kForeignOwner:
            return "owned by somebody else than expected: not trusted";
        case AttachResult::kUnsafeMode:
            return "writable by somebody who must not write it: not trusted";
        case AttachResult::kNotARegularFile:
            return "a segment is not a regular file: not trusted";
        case AttachResult::kTruncated:
            return "a segment is shorter than its header says";
        case AttachResult::kBadMagic:
            return "not a segment of apikeyd";
        case AttachResult::kAbiMismatch:
            return "the daemon speaks another version of the shared memory: upgrade libapikey or apikeyd";
        case AttachResult::kLayoutMismatch:
            return "the daemon was built with another layout of the shared memory: use builds of one version";
        case AttachResult::kBadGeometry:
            return "a segment's offsets and sizes do not fit: not trusted";
        case AttachResult::kSuperseded:
            return "the generation was replaced meanwhile; looking again";
        case AttachResult::kNoDescriptors:
            return "no file descriptor free (EMFILE); validation goes on where it was attached";
        case AttachResult::kNoMemory:
            return "no memory or address space for the mapping";
        case AttachResult::kIoError:
            return "an unexpected error of the operating system";
    }
    return "unknown";
}

}  // namespace apikey::shm
