// Where a function was called: as a parameter's default argument, in place of std::source_location, which
// clang 14 cannot compile out of libstdc++.

#pragma once

namespace apikey::test {

class CallPlace {
  public:
    static constexpr CallPlace current(const char* file = __builtin_FILE(), unsigned line = __builtin_LINE(),
                                       const char* function = __builtin_FUNCTION()) {
        return {file, line, function};
    }
    const char* file_name() const { return file_; }
    unsigned line() const { return line_; }
    const char* function_name() const { return function_; }

  private:
    constexpr CallPlace(const char* file, unsigned line, const char* function)
        : file_(file), line_(line), function_(function) {}

    const char* file_;
    unsigned line_;
    const char* function_;
};

}  // namespace apikey::test
