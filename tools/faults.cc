#include "tools/faults.h"

#include <utility>

namespace apikeyd {

namespace {

constexpr size_t kFaultsTold = 20;

}  // namespace

void Faults::add(std::string what) {
    if (++count_ <= kFaultsTold) {
        first_.push_back(std::move(what));
    }
}

std::string Faults::text(std::string_view outcome) const {
    std::string text;
    for (const std::string& one : first_) {
        text += one + "\n";
    }
    if (count_ > first_.size()) {
        text += "and " + std::to_string(count_ - first_.size()) + " more\n";
    }
    return text.append(outcome);
}

}  // namespace apikeyd
