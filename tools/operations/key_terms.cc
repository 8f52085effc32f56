#include "tools/operations/key_terms.h"

namespace apikeyd {

Outcome check_terms(const KeyTerms& terms, const PolicySet& set) {
    const auto fault = terms_fault(terms, set);
    if (!fault) {
        return {};
    }
    // It begins with the field of a key set that says the same.
    constexpr std::string_view kBehindField = ": ";
    const size_t colon = fault->find(kBehindField);
    return failed(Exit::kNo, Cause::kWanted, fault->substr(colon + kBehindField.size()),
                  fault->substr(0, colon));
}

std::shared_ptr<const KeyTerms> row_terms(KeyTerms terms) {
    return terms.empty() ? nullptr : std::make_shared<const KeyTerms>(std::move(terms));
}

}  // namespace apikeyd
