// The C ABI: arguments checked, structs of other sizes met, then straight to the code that does it.

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "client/scopes.h"
#include "client/validate.h"
#include "shm/instance_place.h"

using apikey::client::Mapping;
using apikey::client::Reading;
using apikey::client::Target;

namespace {

namespace shm = apikey::shm;

static_assert(static_cast<int>(APIKEY_OK) == static_cast<int>(shm::AttachResult::kOk));
static_assert(static_cast<int>(APIKEY_IO_ERROR) == static_cast<int>(shm::AttachResult::kIoError));
static_assert(sizeof(apikey_limit::name) == shm::kLimitNameBytes);
static_assert(static_cast<int>(APIKEY_NO_DESCRIPTORS) == static_cast<int>(shm::AttachResult::kNoDescriptors));

constexpr uint32_t kStaleAfterDefault_ms = 10000;
constexpr uint32_t kRetryDelay_ms = 100;

/// The part of a caller's struct that both sides know; the rest reads as zero.
template <typename Struct>
Struct known_part(const Struct* given) {
    Struct known;
    std::memset(static_cast<void*>(&known), 0, sizeof known);
    if (given != nullptr) {
        const size_t bytes = given->size < sizeof known ? given->size : sizeof known;
        std::memcpy(static_cast<void*>(&known), given, bytes);
    }
    return known;
}

/// Gives back a result in the size that the caller's header knew.
template <typename Struct>
void give(Struct* to, const Struct& value) {
    const size_t size = to->size;
    std::memcpy(static_cast<void*>(to), &value, size < sizeof value ? size : sizeof value);
    to->size = size;
}

/// The instance's directory; false when it is too long or the instance's name is none.
bool set_directory(apikey_client* client, const apikey_options& options) {
    const char* instance = options.instance != nullptr ? options.instance : shm::kInstanceDefault;
    if (!shm::is_plain_name(instance)) {
        return false;
    }
    client->expected_owner = options.check_owner != 0 ? options.expected_owner : shm::kAnyOwner;
    const auto fits = [](int length, size_t bytes) {
        return length > 0 && static_cast<size_t>(length) < bytes;
    };
    if (options.directory != nullptr) {
        return fits(
            snprintf(client->directory, sizeof client->directory, "%s/%s", options.directory, instance),
            sizeof client->directory);
    }
    if (geteuid() != 0) {
        // Which of both has a daemon may show later than this: the host may start the server first.
        client->own_uid = geteuid();
        if (!fits(snprintf(client->own_directory, sizeof client->own_directory, "%s%u/%s",
                           shm::kUserDirectoryStem, client->own_uid, instance),
                  sizeof client->own_directory)) {
            return false;
        }
    }
    return fits(
        snprintf(client->directory, sizeof client->directory, "%s/%s", shm::kSystemDirectory, instance),
        sizeof client->directory);
}

}  // namespace

extern "C" {

apikey_result apikey_open(const apikey_options* options, apikey_client** client) {
    if (client == nullptr) {
        return APIKEY_BAD_ARGUMENT;
    }
    *client = nullptr;
    if (options != nullptr && options->size < offsetof(apikey_options, stale_policy)) {
        return APIKEY_BAD_ARGUMENT;  // no header had less: the size was not set
    }
    const apikey_options known = known_part(options);
    int stale_policy;  // as the number it is: a C caller can put any into the enum
    static_assert(sizeof stale_policy == sizeof known.stale_policy);
    std::memcpy(&stale_policy, &known.stale_policy, sizeof stale_policy);
    int metering;
    static_assert(sizeof metering == sizeof known.metering);
    std::memcpy(&metering, &known.metering, sizeof metering);
    const char* environment = known.required_environment != nullptr ? known.required_environment : "";
    if ((stale_policy != APIKEY_STALE_SERVE && stale_policy != APIKEY_STALE_DENY) ||
        (metering != APIKEY_METERING_REQUIRED && metering != APIKEY_METERING_OPTIONAL) ||
        std::strlen(environment) >= shm::kEnvironmentNameBytes) {
        return APIKEY_BAD_ARGUMENT;
    }
    auto* made = static_cast<apikey_client*>(calloc(1, sizeof(apikey_client)));
    if (made == nullptr || !apikey::client::records_prepare()) {
        free(made);
        return APIKEY_NO_MEMORY;
    }
    if (!set_directory(made, known)) {
        free(made);
        return APIKEY_BAD_ARGUMENT;
    }
    made->stale_policy = static_cast<apikey_stale_policy>(stale_policy);
    made->metering = static_cast<apikey_metering>(metering);
    std::memcpy(made->required_environment, environment, std::strlen(environment));
    made->stale_after_ns =
        uint64_t{known.stale_after_ms != 0 ? known.stale_after_ms : kStaleAfterDefault_ms} * 1000000;
    made->sha256 = &shm::sha256_kernel();
    made->retry_delay_ms.store(kRetryDelay_ms, std::memory_order_relaxed);
    const shm::AttachResult attached = apikey::client::switch_mapping(made, nullptr, Target::kCurrent);
    if (attached == shm::AttachResult::kNoMemory) {
        apikey_close(made);
        return APIKEY_NO_MEMORY;
    }
    *client = made;
    return static_cast<apikey_result>(attached);
}

apikey_code apikey_validate(apikey_client* client, const char* key, size_t key_len, apikey_verdict* verdict) {
    return apikey::client::validate(client, key, key_len, apikey::client::Asked{}, verdict);
}

apikey_result apikey_validate_request(apikey_client* client, const char* key, size_t key_len,
                                      const apikey_request* request, apikey_verdict* verdict) {
    const apikey_request known = known_part(request);
    // No header had less of either: their sizes were not set.
    const bool limits_ok = known.limits == nullptr ||
                           known.limits->size >= offsetof(apikey_limits, quota) + sizeof(apikey_limit);
    if (known.cost == 0 || known.size < offsetof(apikey_request, reserved) || !limits_ok) {
        std::memset(verdict, 0, sizeof *verdict);
        verdict->code = APIKEY_UNAVAILABLE;
        return APIKEY_BAD_ARGUMENT;
    }
    // What is kept with an expression changes what nobody can see of it.
    apikey_limits limits{};
    const apikey::client::Asked asked{const_cast<apikey_scopes*>(known.scopes), known.address, known.cost,
                                      known.limits != nullptr ? &limits : nullptr};
    apikey::client::validate(client, key, key_len, asked, verdict);
    if (known.limits != nullptr) {
        give(known.limits, limits);
    }
    return APIKEY_OK;
}

apikey_result apikey_scopes_compile(apikey_client* client, const char* expression, apikey_scopes** scopes,
                                    size_t* error_offset) {
    if (client == nullptr || expression == nullptr || scopes == nullptr) {
        return APIKEY_BAD_ARGUMENT;
    }
    *scopes = nullptr;
    auto* made = static_cast<apikey_scopes*>(calloc(1, sizeof(apikey_scopes)));
    if (made == nullptr) {
        return APIKEY_NO_MEMORY;
    }
    const Reading reading(client);
    const shm::TableView* table =
        reading.mapping() != nullptr ? &reading.mapping()->generation.table : nullptr;
    const apikey_result result = apikey::client::compile_scopes(table, expression, made, error_offset);
    if (result != APIKEY_OK) {
        free(made);
        return result;
    }
    *scopes = made;
    return APIKEY_OK;
}

void apikey_scopes_free(apikey_scopes* scopes) {
    free(scopes);
}

apikey_result apikey_address_parse(const char* text, size_t text_len, apikey_address* address) {
    return address != nullptr && apikey::client::parse_address(text, text_len, address) ? APIKEY_OK
                                                                                        : APIKEY_BAD_ARGUMENT;
}

size_t apikey_validate_many(apikey_client* client, const apikey_key* keys, size_t count,
                            apikey_verdict* verdicts) {
    return apikey::client::validate_many(client, keys, count, verdicts);
}

int apikey_describe(apikey_client* client, const apikey_verdict* verdict, char* buffer, size_t buffer_bytes,
                    apikey_description* description) {
    apikey_description found{};
    found.key_id = found.owner = found.environment = found.name = found.metadata = "";
    apikey_description described = found;
    const int result = apikey::client::describe(client, *verdict, buffer, buffer_bytes, &described);
    give(description, result == 1 ? described : found);
    return result;
}

apikey_result apikey_refresh(apikey_client* client) {
    Reading reading(client);
    if (reading.busy()) {
        return static_cast<apikey_result>(client->attached.load(std::memory_order_relaxed));
    }
    client->refreshed_ns.store(apikey::client::coarse_now_ns(), std::memory_order_relaxed);
    return static_cast<apikey_result>(apikey::client::switch_mapping(client, &reading, Target::kCurrent));
}

void apikey_status(apikey_client* client, apikey_status_info* info) {
    apikey_status_info now{};
    now.attached = static_cast<apikey_result>(client->attached.load(std::memory_order_relaxed));
    now.text = apikey_result_text(now.attached);
    now.kernel = client->sha256->name;
    Reading reading(client);
    if (const Mapping* mapping = reading.mapping(); mapping != nullptr) {
        const shm::Control& control = *mapping->control.control;
        const uint64_t now_ns = apikey::client::coarse_now_ns();
        const uint64_t heartbeat_ns = control.heartbeat_ns.load(std::memory_order_relaxed);
        now.generation = mapping->generation.table.generation;
        now.keys = mapping->generation.table.header().live.load(std::memory_order_relaxed);
        // SYNC position-applied: acquire; pairs with ControlWriter::applied(). First, so that the fingerprint
        // is at least as new.
        now.position = control.applied_position.load(std::memory_order_acquire);
        now.fingerprint = control.source_fingerprint.load(std::memory_order_relaxed);
        now.heartbeat_age_ms = now_ns > heartbeat_ns ? (now_ns - heartbeat_ns) / 1000000 : 0;
        now.flags = apikey::client::flags_of(*client, *mapping, now_ns);
    }
    give(info, now);
}

void apikey_close(apikey_client* client) {
    if (client == nullptr) {
        return;
    }
    // Relaxed: all other calls have returned, and the caller knows.
    for (Mapping* node = client->nodes.load(std::memory_order_relaxed); node != nullptr;) {
        Mapping* next = node->next;
        shm::detach_generation(&node->generation);
        shm::detach_generation(&node->before);
        shm::detach_control(&node->control);
        free(node);
        node = next;
    }
    free(client);
}

const char* apikey_code_name(apikey_code code) {
    static const char* const names[] = {"VALID",
                                        "MALFORMED",
                                        "NOT_FOUND",
                                        "REVOKED",
                                        "DISABLED",
                                        "EXPIRED",
                                        "IP_NOT_ALLOWED",
                                        "INSUFFICIENT_PERMISSIONS",
                                        "RATE_LIMITED",
                                        "USAGE_EXCEEDED",
                                        "UNAVAILABLE",
                                        "SHADOW_RATE_LIMITED",
                                        "SHADOW_USAGE_EXCEEDED"};
    const auto index = static_cast<unsigned>(code);
    return index < sizeof names / sizeof names[0] ? names[index] : "UNKNOWN";
}

const char* apikey_result_text(apikey_result result) {
    switch (result) {
        case APIKEY_BAD_ARGUMENT:
            return "an argument is out of range, or a path is too long";
        case APIKEY_BAD_EXPRESSION:
            return "no expression of scopes: want names, AND, OR and parentheses that match";
        case APIKEY_UNKNOWN_SCOPE:
            return "no scope of this name is defined in the key set";
        default:
            return shm::attach_text(static_cast<shm::AttachResult>(result));
    }
}

}  // extern "C"
