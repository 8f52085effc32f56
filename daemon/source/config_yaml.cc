#include "source/config_yaml.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <functional>
#include <set>
#include <vector>

#include "base/instance_place.h"
#include "base/utf8.h"
#include "source/text_file.h"
#include "source/yaml_events.h"

namespace apikeyd {

bool is_instance_name(std::string_view name) {
    const auto allowed = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-'; };
    return !name.empty() && name.size() <= kInstanceBytesMax &&
           std::all_of(name.begin(), name.end(), allowed);
}

namespace {

constexpr size_t kConfigBytesMax = size_t{1} << 20;
constexpr size_t kGroupBytesMax = 32;  // LOGIN_NAME_MAX of useradd and groupadd
constexpr size_t kHostBytesMax = 64;   // HOST_NAME_MAX
constexpr size_t kPathBytesMax = 4095;

/// Empty when the value was taken; else what is wrong and what is wanted.
using Taken = std::string;
using Setter = std::function<Taken(const YamlScalar& value, Config& config)>;

struct Field {
    std::string_view name;  // `reload.poll_ms` for a field of a section
    Setter set;
    bool required = false;
};

/// `max` must fit a T.
template <typename T>
Taken parse_number(const YamlScalar& value, uint64_t min, uint64_t max, T& out) {
    uint64_t parsed = 0;
    const char* const end = value.text.data() + value.text.size();
    const auto [stop, error] = std::from_chars(value.text.data(), end, parsed);
    if (value.kind != YamlScalarKind::kPlain || error != std::errc{} || stop != end || parsed < min ||
        parsed > max) {
        return yaml_quote(value.text) + " (want a whole number from " + std::to_string(min) + " to " +
               std::to_string(max) + ")";
    }
    out = static_cast<T>(parsed);
    return {};
}

template <typename T>
Setter number(T Config::*member, uint64_t min, uint64_t max) {
    return [=](const YamlScalar& value, Config& config) {
        return parse_number(value, min, max, config.*member);
    };
}

template <typename Section>
Setter in_section(Section Config::*section, uint32_t Section::*member, uint64_t min, uint64_t max) {
    return [=](const YamlScalar& value, Config& config) {
        return parse_number(value, min, max, (config.*section).*member);
    };
}

template <typename E>
using Choices = std::vector<std::pair<std::string_view, E>>;

const Choices<LogFormat> kLogFormats = {{"logfmt", LogFormat::logfmt}, {"json", LogFormat::json}};

template <typename E>
Taken choose(const YamlScalar& value, const Choices<E>& choices, E& out) {
    std::string wanted;
    for (const auto& [name, choice] : choices) {
        if (value.text == name) {
            out = choice;
            return {};
        }
        wanted += (wanted.empty() ? "" : ", ") + std::string(name);
    }
    return yaml_quote(value.text) + " (want one of " + wanted + ")";
}

/// A path, made absolute from the directory of the configuration file.
Taken take_path(std::string_view text, const std::filesystem::path& base, std::string& out) {
    if (text.empty() || text.size() > kPathBytesMax || has_control(text)) {
        return yaml_quote(text) + " is no path (want 1 to " + std::to_string(kPathBytesMax) +
               " bytes without control characters)";
    }
    out = (base / std::filesystem::path(text)).lexically_normal().string();
    return {};
}

Taken take_url(const YamlScalar& value, std::string_view scheme, const std::filesystem::path& base,
               std::string& out) {
    if (!value.text.starts_with(scheme)) {
        return yaml_quote(value.text) + " (want " + std::string(scheme) + "PATH)";
    }
    return take_path(value.text.substr(scheme.size()), base, out);
}

Taken take_source(const YamlScalar& value, const std::filesystem::path& base, StoreName& out) {
    Result<StoreName> named = store_named(value.text);
    if (!named) {
        return named.error().message;
    }
    if (!named->is_file()) {
        out = *std::move(named);
        return {};
    }
    out.kind = named->kind;
    return take_path(named->place, base, out.place);
}

Taken take_group(const YamlScalar& value, std::string& out) {
    const auto allowed = [](char c) {
        return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_' || c == '-' ||
               c == '.';
    };
    if (value.text.empty() || value.text.size() > kGroupBytesMax || value.text.front() == '-' ||
        !std::all_of(value.text.begin(), value.text.end(), allowed)) {
        return yaml_quote(value.text) + " is no group name (want 1 to " + std::to_string(kGroupBytesMax) +
               " characters A-Za-z0-9_.-)";
    }
    out = value.text;
    return {};
}

Taken take_instance(const YamlScalar& value, Config& config) {
    if (!is_instance_name(value.text)) {
        return yaml_quote(value.text) + " is no instance name (want 1 to " +
               std::to_string(kInstanceBytesMax) + " characters a-z0-9-)";
    }
    config.instance = value.text;
    return {};
}

Taken take_host(const YamlScalar& value, Config& config) {
    const auto allowed = [](unsigned char c) { return isalnum(c) != 0 || c == '.' || c == '-' || c == '_'; };
    if (value.text.empty() || value.text.size() > kHostBytesMax ||
        !std::all_of(value.text.begin(), value.text.end(), allowed)) {
        return yaml_quote(value.text) + " is no host's name (want 1 to " + std::to_string(kHostBytesMax) +
               " characters A-Za-z0-9_.-)";
    }
    config.host = value.text;
    return {};
}

/// `192.0.2.1:8443` or `[2001:db8::1]:8443`: an address of this host, no name.
Taken take_listen(const YamlScalar& value, DoorConfig& door) {
    const std::string_view text = value.text;
    const size_t colon = text.rfind(':');
    const std::string_view port = text.substr(colon == std::string_view::npos ? text.size() : colon + 1);
    std::string address(text.substr(0, colon));
    const bool v6 = address.size() > 2 && address.front() == '[' && address.back() == ']';
    if (v6) {
        address = address.substr(1, address.size() - 2);
    }
    in6_addr parsed{};
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), door.port);
    if (inet_pton(v6 ? AF_INET6 : AF_INET, address.c_str(), &parsed) != 1 || error != std::errc{} ||
        end != port.data() + port.size()) {
        return yaml_quote(text) + " (want ADDRESS:PORT, as 127.0.0.1:8443 or [::1]:8443)";
    }
    door.address = address;
    return {};
}

std::vector<Field> config_fields(const std::filesystem::path& base) {
    const auto path = [base](auto member) {
        return [=](const YamlScalar& v, Config& c) { return take_path(v.text, base, member(c)); };
    };
    return {
        {"instance", take_instance},
        {"host", take_host},
        {"directory", path([](Config& c) -> std::string& { return c.directory; })},
        {"source", [base](const YamlScalar& v, Config& c) { return take_source(v, base, c.source); }, true},
        {"usage",
         [base](const YamlScalar& v, Config& c) { return take_url(v, "sqlite:", base, c.usage_path); }, true},
        {"clients_group", [](const YamlScalar& v, Config& c) { return take_group(v, c.clients_group); }},
        {"operators_group", [](const YamlScalar& v, Config& c) { return take_group(v, c.operators_group); }},
        {"log.format",
         [](const YamlScalar& v, Config& c) { return choose<LogFormat>(v, kLogFormats, c.log.format); }},
        {"log.level",
         [](const YamlScalar& v, Config& c) {
             return choose<LogLevel>(v,
                                     {{"debug", LogLevel::debug},
                                      {"info", LogLevel::info},
                                      {"warning", LogLevel::warn},
                                      {"error", LogLevel::error}},
                                     c.log.level);
         }},
        {"log.file", path([](Config& c) -> std::string& { return c.log.file; })},
        {"audit_log.format", [](const YamlScalar& v,
                                Config& c) { return choose<LogFormat>(v, kLogFormats, c.audit_log.format); }},
        {"audit_log.file", path([](Config& c) -> std::string& { return c.audit_log.file; })},
        {"denial_log.format",
         [](const YamlScalar& v, Config& c) {
             return choose<LogFormat>(v, kLogFormats, c.denial_log.format);
         }},
        {"denial_log.file", path([](Config& c) -> std::string& { return c.denial_log.file; })},
        {"denial_log.per_second",
         in_section(&Config::denial_log, &DenialLogConfig::per_second, kDenialsMin, kDenialsMax)},
        {"reload.debounce_ms",
         in_section(&Config::reload, &ReloadConfig::debounce_ms, kDebounceMin_ms, kDebounceMax_ms)},
        {"reload.poll_ms", in_section(&Config::reload, &ReloadConfig::poll_ms, kPollMin_ms, kPollMax_ms)},
        {"reload.max_loss_percent",
         in_section(&Config::reload, &ReloadConfig::max_loss_percent, kLossMin_percent, kLossMax_percent)},
        {"snapshot.file", path([](Config& c) -> std::string& { return c.snapshot.file; })},
        {"snapshot.max_age_h",
         in_section(&Config::snapshot, &SnapshotConfig::max_age_h, kSnapshotAgeMin_h, kSnapshotAgeMax_h)},
        {"retention.minutes_h",
         in_section(&Config::retention, &RetentionConfig::minutes_h, kMinutesMin_h, kMinutesMax_h)},
        {"retention.hours_d",
         in_section(&Config::retention, &RetentionConfig::hours_d, kHoursMin_d, kHoursMax_d)},
        {"retention.days_d",
         in_section(&Config::retention, &RetentionConfig::days_d, kDaysMin_d, kDaysMax_d)},
        {"door.listen", [](const YamlScalar& v, Config& c) { return take_listen(v, c.door); }},
        {"door.certificate", path([](Config& c) -> std::string& { return c.door.certificate; })},
        {"door.key", path([](Config& c) -> std::string& { return c.door.key; })},
        {"door.tls",
         [](const YamlScalar& v, Config& c) {
             return choose<bool>(v, {{"on", true}, {"off", false}}, c.door.tls);
         }},
        {"flush_interval_ms", number(&Config::flush_interval_ms, kFlushMin_ms, kFlushMax_ms)},
        {"heartbeat_interval_ms", number(&Config::heartbeat_interval_ms, kHeartbeatMin_ms, kHeartbeatMax_ms)},
        {"capacity", number(&Config::capacity_keys, 0, kCapacityMax_keys)},
        {"event_loop",
         [](const YamlScalar& v, Config& c) {
             return choose<LoopKind>(v,
                                     {{"auto", LoopKind::automatic},
                                      {"io_uring", LoopKind::io_uring},
                                      {"epoll", LoopKind::epoll}},
                                     c.event_loop);
         }},
    };
}

/// Depth 0: before the document's mapping; 1: in it; 2: in a section.
class ConfigVisitor final : public YamlVisitor {
  public:
    ConfigVisitor(std::vector<Field> fields, Config& config, YamlReporter& reporter)
        : fields_(std::move(fields)), config_(config), reporter_(reporter) {}

    void on_scalar(const YamlScalar& scalar) override {
        if (ignored_depth_ > 0) {
            return;
        }
        if (depth_ == 0) {
            stop(scalar.place, "the configuration is empty or a single value (want 'name: value' lines)");
        }
        if (name_next_) {
            on_name(scalar);
        } else {
            on_value(scalar);
            name_next_ = true;
        }
    }
    void on_map_begin(YamlPlace place, bool) override {
        if (depth_ > 0 && (ignored_depth_ > 0 || name_next_ || ignore_value_ || !is_section_)) {
            ignore(place, "a mapping (want a single value)");
            return;
        }
        section_ = depth_ == 0 ? "" : name_ + ".";
        ++depth_;
        name_next_ = true;
    }
    void on_map_end() override {
        if (ignored_depth_ > 0) {
            leave_ignored();
            return;
        }
        --depth_;
        section_.clear();
        name_next_ = true;
        if (depth_ == 0) {
            report_missing();
        }
    }
    void on_sequence_begin(YamlPlace place, bool) override {
        if (depth_ == 0) {
            stop(place, "the configuration is a list (want 'name: value' lines)");
        }
        ignore(place, is_section_ ? "a list (want a mapping)" : "a list (want a single value)");
    }
    void on_sequence_end() override { leave_ignored(); }

  private:
    [[noreturn]] void stop(YamlPlace place, std::string_view what) {
        reporter_.add(place, what);
        throw YamlStop{};
    }

    /// Enters a collection that stands where none is wanted, reporting the outermost.
    void ignore(YamlPlace place, std::string_view what) {
        if (name_next_ && ignored_depth_ == 0) {
            stop(place, "a list or a mapping as a field's name (want 'name: value' lines)");
        }
        if (ignored_depth_ == 0 && !ignore_value_) {
            reporter_.add(place, name_ + ": " + std::string(what));
        }
        ++ignored_depth_;
    }
    void leave_ignored() {
        if (--ignored_depth_ == 0) {
            name_next_ = true;
        }
    }

    void on_name(const YamlScalar& scalar) {
        name_next_ = false;
        ignore_value_ = true;
        name_ = section_ + std::string(scalar.text);
        name_place_ = scalar.place;
        const auto named = [&](const Field& field) { return field.name == name_; };
        const auto found = std::find_if(fields_.begin(), fields_.end(), named);
        field_ = found == fields_.end() || name_.find('.') != section_.find('.') ? nullptr : &*found;
        is_section_ = section_.empty() && is_section(name_);
        if (field_ == nullptr && !is_section_) {
            reporter_.add(scalar.place,
                          "unknown field " + yaml_quote(name_) + " (want one of " + wanted_names() + ")");
        } else if (!seen_.insert(name_).second) {
            reporter_.add(scalar.place, name_ + ": stands twice (want it once)");
        } else {
            ignore_value_ = false;
        }
    }

    void on_value(const YamlScalar& scalar) {
        if (ignore_value_) {
            return;
        }
        const bool null = scalar.kind == YamlScalarKind::kNull;
        const YamlPlace place = null ? name_place_ : scalar.place;
        if (is_section_) {
            reporter_.add(place, name_ + ": no mapping (want {name: value, ...}, or leave it out)");
        } else if (null) {
            reporter_.add(place, name_ + ": no value (want one, or leave the field out for its default)");
        } else if (const Taken wrong = field_->set(scalar, config_); !wrong.empty()) {
            reporter_.add(place, name_ + ": " + wrong);
        } else {
            config_.places.emplace(name_, reporter_.word(place));
        }
    }

    [[nodiscard]] bool is_section(std::string_view name) const {
        return std::any_of(fields_.begin(), fields_.end(), [&](const Field& field) {
            return field.name.starts_with(name) && field.name.substr(name.size()).starts_with('.');
        });
    }

    [[nodiscard]] std::string wanted_names() const {
        std::set<std::string_view> names;
        for (const Field& field : fields_) {
            const bool inside = section_.empty() || field.name.starts_with(section_);
            const std::string_view rest = inside ? field.name.substr(section_.size()) : std::string_view{};
            names.insert(rest.substr(0, rest.find('.')));
        }
        std::string all;
        for (const std::string_view name : names) {
            all += (all.empty() || name.empty() ? "" : ", ") + std::string(name);
        }
        return all;
    }

    void report_missing() {
        for (const Field& field : fields_) {
            if (field.required && seen_.find(field.name) == seen_.end()) {
                reporter_.add({}, std::string(field.name) + ": missing (required)");
            }
        }
    }

    std::vector<Field> fields_;
    Config& config_;
    YamlReporter& reporter_;
    std::set<std::string, std::less<>> seen_;
    std::string section_;  // `log.` inside of log
    std::string name_;     // of the value that comes next, section in front
    YamlPlace name_place_;
    const Field* field_ = nullptr;
    bool is_section_ = false;
    bool ignore_value_ = false;
    bool name_next_ = false;
    int depth_ = 0;
    int ignored_depth_ = 0;
};

/// A log appends to its file, and a snapshot takes the place of one: it has to be one of its own. Empty: it
/// is.
std::string shared_file(const Config& config, const std::string& config_path) {
    const std::string nothing;
    const std::pair<std::string_view, const std::string&> files[] = {
        {"audit_log.file", config.audit_log.file},
        {"denial_log.file", config.denial_log.file},
        {"log.file", config.log.file},
        {"snapshot.file", config.snapshot.file},
        {"source", config.source.is_file() ? config.source.place : nothing},
        {"usage", config.usage_path},
        {"the configuration", config_path}};
    constexpr size_t kOfItsOwn = 4;
    const auto normal = [](const std::string& path) {
        return std::filesystem::path(path).lexically_normal();
    };
    for (size_t one = 0; one < kOfItsOwn; ++one) {
        for (size_t other = one + 1; other < std::size(files); ++other) {
            if (!files[one].second.empty() && normal(files[one].second) == normal(files[other].second)) {
                return config.named(files[one].first) + ": is the file of " +
                       std::string(files[other].first) + " as well (want a file of its own)";
            }
        }
    }
    return {};
}

bool is_loopback(const std::string& address) {
    return address == "::1" || address.starts_with("127.");
}

/// Keys go over TCP in the clear only where no network is. Empty: they do not.
std::string door_fault(const Config& config) {
    const DoorConfig& door = config.door;
    if (door.address.empty()) {
        const bool given = config.places.find("door.certificate") != config.places.end() ||
                           config.places.find("door.key") != config.places.end() ||
                           config.places.find("door.tls") != config.places.end();
        return given ? "door.listen: missing (required with the rest of door)" : "";
    }
    if (!door.tls) {
        return is_loopback(door.address)
                   ? ""
                   : config.named("door.tls") +
                         ": off, and door.listen is no loopback address (want a certificate and a key)";
    }
    for (const auto& [field, path] :
         {std::pair("door.certificate", &door.certificate), {"door.key", &door.key}}) {
        if (path->empty()) {
            return config.named("door.listen") + ": " + field +
                   " is missing (required; on a loopback address tls: off does without)";
        }
    }
    return {};
}

}  // namespace

std::string Config::named(std::string_view field) const {
    const auto place = places.find(field);
    return place == places.end() ? std::string(field) + " (default)"
                                 : place->second + ": " + std::string(field);
}

Result<Config> parse_config(std::string_view text, const std::string& file) {
    std::error_code error;
    const std::filesystem::path absolute = std::filesystem::absolute(file, error);
    if (error) {
        return fail(file + ": cannot find its directory: " + error.message());
    }
    Config config;
    config.directory = default_directory(geteuid());
    YamlLimits limits;
    limits.file_bytes_max = kConfigBytesMax;
    YamlReporter reporter(file, text);
    ConfigVisitor visitor(config_fields(absolute.parent_path()), config, reporter);
    if (!run_yaml_events(text, limits, visitor, reporter)) {
        return fail(reporter.errors().joined());
    }
    if (std::string shared = shared_file(config, absolute.string()); !shared.empty()) {
        return fail(std::move(shared));
    }
    if (std::string fault = door_fault(config); !fault.empty()) {
        return fail(std::move(fault));
    }
    return config;
}

Result<Config> load_config(const std::string& path) {
    const auto text = read_text_file(path, kConfigBytesMax);
    if (!text) {
        return tl::unexpected(text.error());
    }
    return parse_config(*text, path);
}

}  // namespace apikeyd
