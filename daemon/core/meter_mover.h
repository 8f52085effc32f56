// The end of a generation's meters: what keys and owners have spent goes on in the next one.

#pragma once

#include "shm/generation.h"

namespace apikeyd {

/// A generation's meters, and whose they are.
struct Metered {
    const apikey::shm::TableView& table;
    const apikey::shm::CellsView& cells;
};

/// Of one that the caller keeps.
inline Metered metered(const apikey::shm::Generation& generation) {
    return {generation.table().view(), generation.cells()};
}

/// Whether there is anything to move.
bool has_meters(const Metered& from);

/// Marks every meter word of `from` as moved and carries it over to `to`, which was announced and is not
/// published yet. When this returns nobody takes from `from` any more, and a word of `to` that is 0 is
/// fresh. May run beside clients that do the same word by word, beside changes of both tables by another
/// thread, and again after it was killed anywhere.
void move_meters(const Metered& from, const Metered& to);

}  // namespace apikeyd
