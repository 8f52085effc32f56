// Linked at configuration time to learn whether clang has libFuzzer and the sanitizers' runtimes. Fuzzes
// nothing.

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* /*data*/, size_t /*size*/) {
    return 0;
}
