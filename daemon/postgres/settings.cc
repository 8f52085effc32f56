#include "postgres/settings.h"

#include "postgres/failure.h"

namespace apikeyd {

namespace {

std::vector<std::string> split_list(const std::string& list) {
    std::vector<std::string> parts;
    for (size_t begin = 0; !list.empty() && begin <= list.size();) {
        const size_t end = std::min(list.find(',', begin), list.size());
        parts.push_back(list.substr(begin, end - begin));
        begin = end + 1;
    }
    return parts;
}

}  // namespace

PqPtr<PGconn> PostgresSettings::start() const {
    std::vector<const char*> keywords;
    std::vector<const char*> values;
    for (const auto& [keyword, value] : all_) {
        keywords.push_back(keyword.c_str());
        values.push_back(value.c_str());
    }
    keywords.push_back(nullptr);
    values.push_back(nullptr);
    return PqPtr<PGconn>(PQconnectStartParams(keywords.data(), values.data(), 0));
}

Result<PostgresSettings> settings_of(const std::string& place) {
    char* raw_error = nullptr;
    const PqPtr<PQconninfoOption> parsed(PQconninfoParse(("postgresql:" + place).c_str(), &raw_error));
    const PqPtr<char> error(raw_error);
    if (!parsed) {
        return fail(postgres_store_named(place) + ": libpq does not understand the URI: " +
                    shown_message(error ? error.get() : "out of memory"));
    }
    PostgresSettings settings;
    settings.set("fallback_application_name", "apikeyd");
    // A connection that the other end does not know any more is noticed within 25 s, also when it is idle.
    settings.set("keepalives_idle", "10");
    settings.set("keepalives_interval", "5");
    settings.set("keepalives_count", "3");
    settings.set("tcp_user_timeout", "20000");
    for (const PQconninfoOption* option = parsed.get(); option->keyword != nullptr; ++option) {
        if (option->val != nullptr) {
            settings.set(option->keyword, option->val);
        }
    }
    settings.set("client_encoding", "UTF8");
    return settings;
}

std::vector<PostgresSettings> each_host(const PostgresSettings& all) {
    const std::vector<std::string> hosts = split_list(all.get("host"));
    const std::vector<std::string> addresses = split_list(all.get("hostaddr"));
    const std::vector<std::string> ports = split_list(all.get("port"));
    const size_t count = std::max(hosts.size(), addresses.size());
    const auto fits = [&](const std::vector<std::string>& list) {
        return list.empty() || list.size() == count;
    };
    if (count < 2 || !fits(hosts) || !fits(addresses) || (ports.size() != 1 && !fits(ports))) {
        return {all};  // one, or what libpq will refuse
    }
    std::vector<std::string> sessions = {all.get("target_session_attrs")};
    if (sessions[0] == "prefer-standby") {
        sessions = {"standby", "any"};
    }
    std::vector<PostgresSettings> each;
    for (const std::string& session : sessions) {
        for (size_t i = 0; i < count; ++i) {
            PostgresSettings one = all;
            one.set("target_session_attrs", session);
            one.set("host", hosts.empty() ? "" : hosts[i]);
            one.set("hostaddr", addresses.empty() ? "" : addresses[i]);
            if (ports.size() == count) {
                one.set("port", ports[i]);
            }
            each.push_back(std::move(one));
        }
    }
    return each;
}

}  // namespace apikeyd
