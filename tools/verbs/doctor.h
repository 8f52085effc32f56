// What doctor's checks hand to each other.

#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/context.h"

namespace apikeyd {

struct Finding {
    std::string_view level;  ///< ok, warn, fail
    std::string_view check;  ///< a literal
    std::string detail;
    std::string advice;  ///< empty when nothing is to be done
};

class Findings {
  public:
    void ok(std::string_view check, std::string detail) {
        all_.push_back({"ok", check, std::move(detail), ""});
    }
    void warn(std::string_view check, std::string detail, std::string advice) {
        all_.push_back({"warn", check, std::move(detail), std::move(advice)});
    }
    void fail(std::string_view check, std::string detail, std::string advice) {
        all_.push_back({"fail", check, std::move(detail), std::move(advice)});
        failed_ = true;
    }
    [[nodiscard]] const std::vector<Finding>& all() const { return all_; }
    [[nodiscard]] bool failed() const { return failed_; }

  private:
    std::vector<Finding> all_;
    bool failed_ = false;
};

/// The instance's directory and its files: type, owner, group and mode.
void check_directory(const Context& context, Findings& findings);

/// Whether the file system has room for another generation of the size of `generation` (0: none yet).
void check_space(const Context& context, uint32_t generation, Findings& findings);

}  // namespace apikeyd
