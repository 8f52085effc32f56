#include "tools/new_key.h"

#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "base/errno_text.h"
#include "base/file_io.h"
#include "shm/sha256.h"

namespace apikeyd {

namespace {

namespace shm = apikey::shm;

constexpr std::string_view kPrefixStart = "ak_";

Outcome draw_random(uint8_t* bytes, size_t count) {
    for (size_t done = 0; done < count;) {
        const ssize_t got = getrandom(bytes + done, count - done, 0);
        if (got < 0 && errno != EINTR) {
            return failed(Exit::kUnreachable, "getrandom: " + errno_text(errno));
        }
        done += got > 0 ? static_cast<size_t>(got) : 0;
    }
    return {};
}

}  // namespace

Outcome guard_plaintext() {
    if (prctl(PR_SET_DUMPABLE, 0) != 0) {
        return failed(Exit::kUnreachable, "prctl: cannot keep keys out of core dumps: " + errno_text(errno));
    }
    return {};
}

bool environment_fits(const std::string& environment) {
    return !environment.empty() && environment.size() <= shm::kPrefixLengthMax - kPrefixStart.size() &&
           std::all_of(environment.begin(), environment.end(),
                       [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); });
}

NewKey::~NewKey() {
    explicit_bzero(text_.data(), text_.size());
}

Outcome NewKey::draw(const std::string& environment, KeyRow& row) {
    const std::string prefix = std::string(kPrefixStart) + environment;
    for (length_ = 0; length_ == 0;) {
        uint8_t random[64];
        if (Outcome drawn = draw_random(random, sizeof random); !drawn) {
            return drawn;
        }
        length_ = shm::native_key_make(prefix.data(), prefix.size(), random, sizeof random, text_.data());
        explicit_bzero(random, sizeof random);
    }
    shm::sha256_kernel().hash(reinterpret_cast<const uint8_t*>(text_.data()), length_, row.digest.data());
    row.id.assign(shm::native_key_id(text_.data(), length_), shm::kIdLength);
    row.environment = environment;
    return {};
}

Outcome NewKey::print(OutputForm form, const std::string& id) const {
    std::string_view before;
    std::string_view between;
    std::string_view after = "\n";
    if (form == OutputForm::json) {
        before = R"({"id":")";
        between = R"(","key":")";
        after = "\"}\n";
    } else if (form == OutputForm::csv) {
        before = "id,key\r\n";
        between = ",";
        after = "\r\n";
    }
    const bool alone = form == OutputForm::table;
    for (const std::string_view part :
         {before, alone ? std::string_view() : std::string_view(id), between, text(), after}) {
        if (const int error = write_all(STDOUT_FILENO, part); error != 0) {
            return failed(Exit::kNo, "standard output: cannot write: " + errno_text(error) +
                                         " (nothing was recorded: a key that nobody has seen is of no use)");
        }
    }
    return {};
}

}  // namespace apikeyd
