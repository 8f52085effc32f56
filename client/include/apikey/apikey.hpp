// C++ face of libapikey: owns the handle, speaks string_view and span. Header only; see apikey.h for the
// contract.
#ifndef APIKEY_APIKEY_HPP
#define APIKEY_APIKEY_HPP

#if __cplusplus < 202002L
#error "apikey.hpp needs C++20: compile with -std=c++20"
#endif

#include <apikey/apikey.h>

#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

namespace apikey {

/// What is known of a key beyond the verdict.
struct Description {
    std::string key_id, owner, environment, name, metadata;
    int64_t created_at = 0;
};

/// A client of one instance. Movable; thread-safe but for destruction and assignment.
class Client {
  public:
    /// Opens; a daemon that is not there yet is no error (see attached()).
    /// \throws std::invalid_argument, std::bad_alloc
    explicit Client(const apikey_options& options = {sizeof(apikey_options), nullptr, nullptr,
                                                     APIKEY_STALE_SERVE, 0, 0, 0, APIKEY_METERING_REQUIRED,
                                                     nullptr}) {
        apikey_client* raw = nullptr;
        attached_ = apikey_open(&options, &raw);
        if (attached_ == APIKEY_BAD_ARGUMENT) {
            throw std::invalid_argument(apikey_result_text(attached_));
        }
        if (raw == nullptr) {
            throw std::bad_alloc();
        }
        handle_.reset(raw);
    }

    /// How the attach at opening ended.
    apikey_result attached() const { return attached_; }

    apikey_verdict validate(std::string_view key) const noexcept {
        apikey_verdict verdict;
        apikey_validate(handle_.get(), key.data(), key.size(), &verdict);
        return verdict;
    }

    /// See apikey_validate_request(); `request.cost` is not 0.
    apikey_verdict validate(std::string_view key, const apikey_request& request) const noexcept {
        apikey_verdict verdict;
        apikey_validate_request(handle_.get(), key.data(), key.size(), &request, &verdict);
        return verdict;
    }

    /// `verdicts` must be at least as long as `keys`. Returns how many are valid.
    size_t validate_many(std::span<const apikey_key> keys,
                         std::span<apikey_verdict> verdicts) const noexcept {
        return apikey_validate_many(handle_.get(), keys.data(), keys.size(), verdicts.data());
    }

    std::optional<Description> describe(const apikey_verdict& verdict) const {
        char buffer[APIKEY_DESCRIPTION_MAX];
        apikey_description found{};
        found.size = sizeof found;
        if (apikey_describe(handle_.get(), &verdict, buffer, sizeof buffer, &found) != 1) {
            return std::nullopt;
        }
        return Description{found.key_id, found.owner,    found.environment,
                           found.name,   found.metadata, found.created_at};
    }

    apikey_result refresh() const noexcept { return apikey_refresh(handle_.get()); }

    apikey_status_info status() const noexcept {
        apikey_status_info info{};
        info.size = sizeof info;
        apikey_status(handle_.get(), &info);
        return info;
    }

    apikey_client* handle() const noexcept { return handle_.get(); }

    struct FreeScopes {
        void operator()(apikey_scopes* scopes) const noexcept { apikey_scopes_free(scopes); }
    };
    using Scopes = std::unique_ptr<apikey_scopes, FreeScopes>;
    /// See apikey_scopes_compile().
    /// \throws std::invalid_argument, with the place in the expression; std::bad_alloc
    Scopes compile_scopes(const std::string& expression) const {
        apikey_scopes* raw = nullptr;
        size_t offset = 0;
        const apikey_result result = apikey_scopes_compile(handle_.get(), expression.c_str(), &raw, &offset);
        if (result == APIKEY_NO_MEMORY) {
            throw std::bad_alloc();
        }
        if (result != APIKEY_OK) {
            throw std::invalid_argument(expression + ": at byte " + std::to_string(offset) + ": " +
                                        apikey_result_text(result));
        }
        return Scopes(raw);
    }

  private:
    struct Close {
        void operator()(apikey_client* client) const noexcept { apikey_close(client); }
    };
    std::unique_ptr<apikey_client, Close> handle_;
    apikey_result attached_ = APIKEY_WAITING;
};

}  // namespace apikey
#endif
