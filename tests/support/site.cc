#include "support/site.h"

#include <stdlib.h>
#include <sys/wait.h>

#include <boost/json.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "base/hex.h"
#include "shm/key_form.h"
#include "source/fingerprint.h"

namespace apikeyd::test {
namespace {

constexpr char kPrefix[] = "ak_test";

}  // namespace

bool await(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (!condition()) {
        if (std::chrono::steady_clock::now() > deadline) {
            return false;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
}

PlainKey PlainKey::of(const std::string& text) {
    const Fingerprint digest = fingerprint(text);
    const char* id = apikey::shm::native_key_id(text.data(), text.size());
    return {text, id != nullptr ? std::string(id, apikey::shm::kIdLength) : std::string(), to_hex(digest)};
}

std::string PlainKey::row(const std::string& more, const std::string& owner) const {
    return "  - {id: " + id + ", sha256: " + sha256 + ", environment: test, owner: " + owner + more + "}\n";
}

PlainKey draw_key(std::minstd_rand& random) {
    uint8_t bytes[128];
    char text[apikey::shm::kNativeKeyLengthMax];
    size_t length = 0;
    while (length == 0) {  // the bytes may run out of unbiased ones
        for (uint8_t& byte : bytes) {
            byte = static_cast<uint8_t>(random() >> 8);
        }
        length = apikey::shm::native_key_make(kPrefix, sizeof kPrefix - 1, bytes, sizeof bytes, text);
    }
    return PlainKey::of(std::string(text, length));
}

Site::Site(const std::string& more) {
    char name[] = "/dev/shm/apikeyd-site-XXXXXX";
    if (mkdtemp(name) == nullptr) {
        throw std::runtime_error("no directory under /dev/shm");
    }
    directory_ = name;
    write("apikeyd.yaml", "source: yaml:keys.yaml\nusage: sqlite:usage.db\ndirectory: " + run() +
                              "\nlog: {file: apikeyd.log}\nreload: {debounce_ms: 20}\n" + more);
}

Site::~Site() {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
}

void Site::write(const std::string& name, const std::string& text) const {
    std::ofstream(path(name) + ".new", std::ios::binary) << text;
    std::filesystem::rename(path(name) + ".new", path(name));
}

std::string Site::read(const std::string& name) const {
    std::ifstream in(path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

Site::Ran Site::tool(const std::string& arguments) const {
    const char* program = getenv("APIKEYCTL");
    if (program == nullptr) {
        throw std::runtime_error("set APIKEYCTL to the tool; meson test does");
    }
    const std::string command = std::string(program) + " --config " + config() + " " + arguments;
    FILE* pipe = popen(command.c_str(), "re");
    if (pipe == nullptr) {
        throw std::runtime_error("cannot run the tool");
    }
    std::string output;
    char buffer[4096];
    for (size_t got; (got = fread(buffer, 1, sizeof buffer, pipe)) > 0;) {
        output.append(buffer, got);
    }
    const int status = pclose(pipe);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output};
}

Totals Site::totals() const {
    const Ran usage = tool("--output json usage");
    if (usage.status != 0) {
        throw std::runtime_error("the tool tells no usage: " + usage.output);
    }
    const boost::json::value told = boost::json::parse(usage.output);
    if (!told.at("complete").as_bool()) {
        throw std::runtime_error("the tool's usage lacks what was counted since the last flush");
    }
    Totals totals;
    for (const boost::json::value& key : told.at("keys").as_array()) {
        totals.by_id[std::string(key.at("id").as_string())] = {key.at("allowed").to_number<uint64_t>(),
                                                               key.at("denied").to_number<uint64_t>()};
    }
    for (const auto& code : told.at("codes").as_object()) {
        totals.by_code[std::string(code.key())] = code.value().to_number<uint64_t>();
    }
    return totals;
}

uint32_t Site::await_applied() const {
    const uint64_t wanted = fingerprint_word(fingerprint(read("keys.yaml")));
    apikey_client* client = open_client();
    apikey_status_info info{};
    info.size = sizeof info;
    const auto look = [&] {
        apikey_refresh(client);
        apikey_status(client, &info);
        return info.generation != 0 && info.fingerprint == wanted;
    };
    // Once more: the generation may have been published after the refresh that came before this fingerprint.
    const bool applied = await(look) && look();
    apikey_close(client);
    if (!applied) {
        throw std::runtime_error(std::string("the key set was never applied: ") + info.text + "\n" +
                                 last_words());
    }
    return info.generation;
}

apikey_client* Site::open_client(uint32_t stale_after_ms, apikey_stale_policy policy) const {
    const std::string directory = run();
    apikey_options options{};
    options.size = sizeof options;
    options.directory = directory.c_str();
    options.stale_after_ms = stale_after_ms;
    options.stale_policy = policy;
    apikey_client* client = nullptr;
    const apikey_result opened = apikey_open(&options, &client);
    if (client == nullptr) {
        throw std::runtime_error(apikey_result_text(opened));
    }
    return client;
}

std::string Site::last_words() const {
    constexpr size_t kBytes = 3000;
    std::string words;
    for (const char* name : {"apikeyd.log", "apikeyd.yaml.stderr"}) {
        const std::string text = read(name);
        words += std::string(name) + ":\n" + text.substr(text.size() > kBytes ? text.size() - kBytes : 0);
    }
    return words;
}

}  // namespace apikeyd::test
