// What a key or an owner may do, as a change finds it defined.

#pragma once

#include <memory>

#include "source/key_row.h"
#include "tools/outcome.h"

namespace apikeyd {

/// Exit::kNo with the field for what `set` does not define.
Outcome check_terms(const KeyTerms& terms, const PolicySet& set);

/// The terms as a row has them.
std::shared_ptr<const KeyTerms> row_terms(KeyTerms terms);

}  // namespace apikeyd
