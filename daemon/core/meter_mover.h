// The end of a generation's meters: what keys and owners have spent goes on in the next one.

#pragma once

#include "shm/generation.h"

namespace apikeyd {

/// Whether there is anything to move.
bool has_meters(const apikey::shm::Generation& from);

/// Marks every meter word of `from` as moved and carries it over to `to`, which was announced and is not
/// published yet. When this returns nobody takes from `from` any more, and a word of `to` that is 0 is
/// fresh. May run beside clients that do the same word by word, beside changes of both tables by another
/// thread, and again after it was killed anywhere.
void move_meters(const apikey::shm::Generation& from, const apikey::shm::Generation& to);

}  // namespace apikeyd
