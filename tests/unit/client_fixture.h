// A client of a TestInstance, and what tests ask of it.

#pragma once

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

#include "apikey/apikey.h"
#include "tests/support/test_instance.h"

namespace apikey::test {

inline void PrintTo(const TestKey& key, std::ostream* out) {
    *out << key.id;
}

struct ClientSettings {
    apikey_stale_policy stale_policy = APIKEY_STALE_SERVE;
    uint32_t stale_after_ms = 0;
};

/// Opens at construction, closes at the end. `result` is what opening answered.
class TestClient {
  public:
    explicit TestClient(const TestInstance& instance, const ClientSettings& settings = {}) {
        apikey_options options{};
        options.size = sizeof options;
        options.directory = instance.base().c_str();
        options.instance = instance.instance().c_str();
        options.stale_policy = settings.stale_policy;
        options.stale_after_ms = settings.stale_after_ms;
        result = apikey_open(&options, &handle);
        if (handle == nullptr) {
            throw std::runtime_error(apikey_result_text(result));
        }
    }
    ~TestClient() { apikey_close(handle); }
    TestClient(const TestClient&) = delete;
    TestClient& operator=(const TestClient&) = delete;

    apikey_verdict verdict(std::string_view key) const {
        apikey_verdict verdict;
        apikey_validate(handle, key.data(), key.size(), &verdict);
        return verdict;
    }
    apikey_code code(std::string_view key) const { return verdict(key).code; }
    apikey_code code(const TestKey& key) const { return verdict(key.text).code; }
    apikey_status_info status() const {
        apikey_status_info info{};
        info.size = sizeof info;
        apikey_status(handle, &info);
        return info;
    }

    apikey_client* handle = nullptr;
    apikey_result result;
};

}  // namespace apikey::test
