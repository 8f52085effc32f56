// What a function answers when it can fail for a reason the caller must handle.
//
// Two classes of failure exist in apikeyd. Expected ones (a bad file, a full disk, a peer that went away)
// travel as Result<T> and are handled or passed up unchanged. Broken invariants of our own abort through
// assert(). The reader's side (attach.h, table_reader.h, cells.h) does not use this: it must not need
// libstdc++.

#pragma once

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace apikey::shm {

/// One failure, worded for the person who can mend it: the place first, then what is wrong, then what is
/// wanted. Never contains a secret.
struct Error {
    std::string message;
    bool of_store = false;  ///< the database would not or could not, whatever it was asked
};

template <typename T>
using Result = tl::expected<T, Error>;

inline tl::unexpected<Error> fail(std::string message) {
    return tl::unexpected<Error>(Error{std::move(message)});
}

}  // namespace apikey::shm
