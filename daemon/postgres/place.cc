#include "postgres/place.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>

#include "base/hex.h"
#include "base/utf8.h"
#include "base/without_secrets.h"

namespace apikeyd {

namespace {

constexpr std::string_view kUse =
    "keep it in a password file (~/.pgpass of the user that runs it, or passfile= in the URI), or use a "
    "certificate (sslcert= and sslkey=)";

/// How many bytes from the start can be shown on a line: printing characters of UTF-8, no space.
size_t printing_length(std::string_view text) {
    size_t length = 0;
    while (length < text.size()) {
        char32_t code_point = 0;
        const size_t bytes = utf8_sequence(text.substr(length), code_point);
        if (bytes == 0 || code_point == ' ' || misleads(code_point)) {
            break;
        }
        length += bytes;
    }
    return length;
}

/// `a` for each `%61`, as libpq reads a parameter's name, and in lower case, since it is somebody's password
/// also where libpq would not know the name. Every '%' has its two digits.
std::string decoded_name(std::string_view name) {
    std::string decoded;
    for (size_t i = 0; i < name.size(); ++i) {
        std::array<uint8_t, 1> byte = {static_cast<uint8_t>(name[i])};
        if (name[i] == '%') {
            from_hex(name.substr(i + 1, 2), byte);
            i += 2;
        }
        const auto c = static_cast<char>(byte[0]);
        decoded += c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
    }
    return decoded;
}

/// Also those of later releases of libpq: oauth_client_secret, scram_client_key, scram_server_key; and what
/// somebody may take for one's name, since the error of a parameter that libpq does not know shows the place.
bool is_secret(std::string_view name) {
    const auto holds = [&](std::string_view word) { return name.find(word) != std::string_view::npos; };
    return (holds("pass") && name != "passfile") || holds("pwd") || holds("secret") ||
           name.starts_with("scram_");
}

/// What is wrong with it; empty: nothing.
std::string fault_of_percent(std::string_view place) {
    for (size_t at = place.find('%'); at != std::string_view::npos; at = place.find('%', at + 3)) {
        std::array<uint8_t, 1> byte{};
        if (!from_hex(place.substr(at + 1, 2), byte) || byte[0] == 0) {
            return "a '%' has no two hexadecimal digits behind it that stand for a character; write %25 for "
                   "'%' itself";
        }
    }
    return {};
}

/// `hosts`: host[:port],host[:port]
std::string fault_of_hosts(std::string_view hosts) {
    for (size_t begin = 0; begin <= hosts.size();) {
        const size_t end = std::min(hosts.find(',', begin), hosts.size());
        std::string_view host = hosts.substr(begin, end - begin);
        begin = end + 1;
        if (host.find_first_of("[]") != std::string_view::npos) {
            const size_t after = host.find(']') + 1;  // 0: there is none
            if (host[0] != '[' || after <= 2 || (after < host.size() && host[after] != ':')) {
                return "an IPv6 address stands in '[' and ']', with nothing else but ':' and a port";
            }
            host.remove_prefix(after);
        }
        const size_t port = std::min(host.find(':'), host.size());
        if (host.find_first_not_of("0123456789", port + 1) != std::string_view::npos) {
            return "behind a host's ':' stands something else than a port's number";
        }
    }
    return {};
}

std::string fault_of_parameters(std::string_view parameters) {
    while (!parameters.empty()) {
        const std::string_view one = parameters.substr(0, parameters.find('&'));
        parameters.remove_prefix(std::min(parameters.size(), one.size() + 1));
        const size_t equals = one.find('=');
        if (is_secret(decoded_name(one.substr(0, equals)))) {
            return "a password or another secret stands in it as a parameter; " + std::string(kUse);
        }
        if (equals == 0 || equals == std::string_view::npos ||
            one.find('=', equals + 1) != std::string_view::npos) {
            return "its parameters are written name=value, with '&' between two; write %3D for '=' and %26 "
                   "for '&' in a value";
        }
    }
    return {};
}

/// As libpq takes it apart: [user[:password]@]hosts[/database][?parameters], where no '/' stands before '@'.
std::string fault_of(std::string_view place) {
    if (!place.starts_with("//")) {
        return "does not begin with '//'; write postgresql://host/database, or postgresql:///database for "
               "the server of this machine";
    }
    if (const size_t length = printing_length(place); length < place.size()) {
        return "its byte " + std::to_string(length + 1) +
               " is a space, a control character or not UTF-8; write %20 for a space";
    }
    if (std::string fault = fault_of_percent(place); !fault.empty()) {
        return fault;
    }
    std::string_view rest = place.substr(2);
    const size_t at = rest.find_first_of("@/");
    bool stray_at = false;
    if (at != std::string_view::npos && rest[at] == '@') {
        // Of a parameter: what stands before it is all the user for libpq.
        stray_at = rest.substr(0, at).find_first_of("?&=") != std::string_view::npos;
        // Encoded it is a part of the user for libpq, and would be told to the server and its log.
        if (decoded_name(rest.substr(0, at)).find(':') != std::string::npos) {
            return "a password stands in it, behind the user; " + std::string(kUse);
        }
        rest.remove_prefix(at + 1);
    }
    // Also in a parameter, where libpq allows it: a password with '/' and '?' could have brought it there.
    if (stray_at || rest.find('@') != std::string_view::npos) {
        return "an '@' stands elsewhere than behind the user; write %40 there, and no password: " +
               std::string(kUse);
    }
    const std::string_view target = rest.substr(0, rest.find('?'));
    if (target.find_first_of("&=") != std::string_view::npos) {
        return "a '=' or '&' stands before the '?' that parameters begin with; write %3D or %26 there";
    }
    if (std::string fault = fault_of_hosts(target.substr(0, target.find('/'))); !fault.empty()) {
        return fault;
    }
    return fault_of_parameters(rest.substr(std::min(rest.size(), target.size() + 1)));
}

/// What says where it is, by name; the user only where the database has no name but the user's.
std::map<std::string, std::string> address_of(std::string_view place) {
    std::map<std::string, std::string> address;
    std::string_view rest = place.substr(2);
    if (const size_t at = rest.find_first_of("@/"); at != std::string_view::npos && rest[at] == '@') {
        address["user"] = rest.substr(0, at);
        rest.remove_prefix(at + 1);
    }
    const std::string_view target = rest.substr(0, rest.find('?'));
    const size_t slash = std::min(target.find('/'), target.size());
    address["hosts"] = target.substr(0, slash);
    address["database"] = target.substr(std::min(slash + 1, target.size()));
    std::string_view parameters = rest.substr(std::min(rest.size(), target.size() + 1));
    while (!parameters.empty()) {
        const std::string_view one = parameters.substr(0, parameters.find('&'));
        parameters.remove_prefix(std::min(parameters.size(), one.size() + 1));
        const size_t equals = one.find('=');
        const std::string name = decoded_name(one.substr(0, equals));
        if (name == "host" || name == "hostaddr" || name == "port" || name == "dbname" || name == "service" ||
            name == "user") {
            address[name] = one.substr(equals + 1);  // of several the last, as for libpq
        }
    }
    if (!address["database"].empty() || address.contains("dbname") || address.contains("service") ||
        address["user"].empty()) {
        address.erase("user");
    }
    return address;
}

}  // namespace

bool same_database(std::string_view a, std::string_view b) {
    return address_of(a) == address_of(b);
}

Result<void> check_postgres_place(std::string_view place) {
    if (const std::string fault = fault_of(place); !fault.empty()) {
        return fail("key store postgresql:" + shown_place(place) + ": " + fault);
    }
    return {};
}

std::string shown_place(std::string_view place) {
    if (fault_of(place).empty()) {
        return without_secrets(place);
    }
    // A password stands behind the ':' of a user or the '=' of a parameter, whatever else is wrong; either
    // may be encoded.
    size_t shown = std::min(printing_length(place), place.find_first_of(":=%"));
    // Or between the user and an '@', where a '/' or another '@' was taken for the ':'.
    const size_t user_end = place.find_first_of("/?@", place.find_first_not_of('/'));
    if (user_end != std::string_view::npos && place.find('@', user_end + 1) != std::string_view::npos) {
        shown = std::min(shown, user_end);
    }
    return without_secrets(place.substr(0, shown)) + (shown < place.size() ? "..." : "");
}

}  // namespace apikeyd
