// One difference between what the source says and what the table says.

#pragma once

#include "source/key_row.h"

namespace apikeyd {

struct Change {
    enum class Kind : uint8_t {
        kUpsert,  ///< the key exists and is as `row` says
        kRemove,  ///< the key left the source; id, digest and foreign of `row` name it
    };
    Kind kind;
    KeyRow row;
};

}  // namespace apikeyd
