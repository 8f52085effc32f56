#include "tests/crash/left_behind.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "shm/header_checks.h"
#include "shm/table_writer.h"

namespace apikey::crash {
namespace {

std::vector<char> content(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

/// As the kernel tells it, 16 bytes.
std::string boot_id() {
    std::string text;
    std::ifstream("/proc/sys/kernel/random/boot_id") >> text;
    std::erase(text, '-');
    std::string bytes;
    for (size_t i = 0; i + 1 < text.size(); i += 2) {
        bytes += static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16));
    }
    return bytes;
}

}  // namespace

LeftBehind::LeftBehind(const std::string& instance) {
    if (!std::filesystem::exists(instance)) {
        return;
    }
    read_control(instance + "/control");
    for (const auto& entry : std::filesystem::directory_iterator(instance)) {
        const std::string name = entry.path().filename();
        if (name.starts_with("table.")) {
            scan_table(entry.path(), static_cast<uint32_t>(std::stoul(name.substr(6))));
        }
    }
}

void LeftBehind::read_control(const std::string& path) {
    const std::vector<char> bytes = content(path);
    if (bytes.empty()) {
        return;
    }
    shm::Control control;
    if (bytes.size() != sizeof control ||
        shm::check_control(bytes.data(), bytes.size()) != shm::AttachResult::kOk) {
        problem_ = "control is not whole";
        return;
    }
    std::memcpy(static_cast<void*>(&control), bytes.data(), sizeof control);
    if (std::memcmp(control.boot, boot_id().data(), sizeof control.boot) == 0) {
        announced_ = shm::next_of(control.current_next.load());
    }
}

void LeftBehind::scan_table(const std::string& path, uint32_t generation) {
    std::vector<char> bytes = content(path);
    shm::TableView view;
    if (shm::check_table(bytes.data(), bytes.size(), generation, &view) != shm::AttachResult::kOk) {
        problem_ = path + ": its header is not whole";
    } else if (!shm::TableWriter(bytes.data(), view).scan()) {
        problem_ = path + ": does not scan";
    }
}

}  // namespace apikey::crash
