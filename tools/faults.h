// What is wrong with rows that come in all or not at all.

#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace apikeyd {

/// Keeps the first twenty, each of them `place: what`, and how many there are.
class Faults {
  public:
    void add(std::string what);
    [[nodiscard]] bool empty() const { return count_ == 0; }
    /// A line each, and what came of them.
    [[nodiscard]] std::string text(std::string_view outcome) const;

  private:
    std::vector<std::string> first_;
    size_t count_ = 0;
};

}  // namespace apikeyd
