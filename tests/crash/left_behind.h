// What a killed writer left in the instance's directory, looked at before the next one touches it.

#pragma once

#include <cstdint>
#include <string>

namespace apikey::crash {

class LeftBehind {
  public:
    /// Scans every table that has its name, in a private copy: nothing is changed.
    explicit LeftBehind(const std::string& instance);

    /// Empty, or what is not whole.
    const std::string& problem() const { return problem_; }
    /// The generation that the next writer has to adopt; 0: none.
    uint32_t announced() const { return announced_; }

  private:
    void read_control(const std::string& path);
    void scan_table(const std::string& path, uint32_t generation);

    std::string problem_;
    uint32_t announced_ = 0;
};

}  // namespace apikey::crash
