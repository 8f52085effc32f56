#include "operator.h"

#include <signal.h>
#include <sqlite3.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <stdexcept>
#include <thread>

#include "shm/layout.h"

namespace apikeyd::test {
namespace {

constexpr size_t kFreshMax = 200000;  // keys that come in the course of a run
constexpr size_t kNone = SIZE_MAX;

constexpr char kConfig[] =
    "flush_interval_ms: 50\nheartbeat_interval_ms: 100\ndenial_log: {file: denials.log, per_second: 1000}\n";

}  // namespace

Operator::Operator(unsigned keys, unsigned seed, Mix mix)
    : site_(kConfig),
      limits_(keys + keys / 2, kClientKinds * kLanesPerClient),
      board_(2 * keys + kFreshMax, kClientKinds * kLanesPerClient + 1, limits_.witness()),
      book_(site_, board_, seed),
      daemon_(site_.config()),
      clients_(site_, board_, limits_, keys / 10),
      keys_(keys),
      mix_(mix) {
    // A tenth of these stays as it is, and a third is never in the set.
    for (size_t i = 0; i < keys + keys / 2; ++i) {
        book_.loosen(book_.draw()).in_set = i < keys;
    }
    limits_.draw(book_);
    book_.write(version_);
}

void Operator::begin() {
    daemon_.start();
    settle();
    limits_.begin();
    clients_.start_all();
}

void Operator::pause_up_to(unsigned ms) {
    usleep(book_.random() % (ms * 1000) + 1);
}

/// A key that is neither stable nor never valid nor limited, and that is `wanted`; kNone when none is met.
size_t Operator::pick(const std::function<bool(const BookedKey&)>& wanted) {
    for (unsigned tries = 0; tries < 1000; ++tries) {
        const size_t key = keys_ / 10 + book_.random() % (book_.size() - keys_ / 10);
        const bool never_valid = key >= keys_ + keys_ / 4 && key < keys_ + keys_ / 2;
        if (!never_valid && !book_[key].limited && wanted(book_[key])) {
            return key;
        }
    }
    return kNone;
}

void Operator::step() {
    struct Event {
        unsigned weight;
        void (Operator::*happens)();
    };
    static constexpr Event kEverything[] = {
        {22, &Operator::reload},     {26, &Operator::change_by_tool}, {12, &Operator::next_generation},
        {8, &Operator::kill_daemon}, {8, &Operator::stop_daemon},     {8, &Operator::kill_client},
        {4, &Operator::stop_client}, {4, &Operator::refused_set},     {5, &Operator::change_plan},
        {1, &Operator::spoil_cells}, {2, &Operator::lock_store},
    };
    static constexpr Event kKills[] = {
        {45, &Operator::kill_daemon},
        {45, &Operator::kill_client},
        {5, &Operator::next_generation},
        {5, &Operator::lock_store},
    };
    unsigned drawn = book_.random() % 100;
    for (const Event& event : mix_ == Mix::kKills ? std::span<const Event>(kKills) : kEverything) {
        if (drawn < event.weight) {
            (this->*event.happens)();
            break;
        }
        drawn -= event.weight;
    }
    for (const int status : clients_.replace_ended()) {
        violation("a client ended by itself, wait status " + std::to_string(status));
    }
    limits_.collect(false);
    pause_up_to(60);
}

// ---------------------------------------------------------------------------------------------- the daemon,
// and sets

/// The set as it stands is in force, and the board says so.
void Operator::settle() {
    daemon_.wait_ready();
    const uint32_t generation = site_.await_applied();
    happened_.switches += generation_ != 0 && generation != generation_ ? 1 : 0;
    generation_ = generation;
    book_.settle();
}

void Operator::restart_daemon() {
    daemon_.kill9();
    ++happened_.kills;
    pause_up_to(50);
    daemon_.start();
    if (chance(20)) {  // in the middle of its start, too
        pause_up_to(30);
        daemon_.kill9();
        ++happened_.kills;
        daemon_.start();
    }
}

void Operator::kill_daemon() {
    restart_daemon();
    settle();
}

void Operator::hang_up_and_maybe_kill() {
    kill(daemon_.pid(), SIGHUP);
    if (chance(30)) {
        pause_up_to(40);
        restart_daemon();
    }
}

void Operator::change_one() {
    const size_t index = pick([](const BookedKey& key) { return key.state != KeyState::kRevoked; });
    if (index == kNone) {
        return;
    }
    BookedKey& key = book_.loosen(index);
    switch (book_.random() % 4) {
        case 0:
            key.in_set = !key.in_set;
            break;
        case 1:
            key.state = KeyState::kDisabled;
            break;
        default:
            key.in_set = true;
            key.state = KeyState::kActive;
    }
}

/// 1% of the keys change, one is revoked, and a fresh one comes in its place.
void Operator::change_set() {
    for (unsigned i = 0; i < keys_ / 100 + 1; ++i) {
        change_one();
    }
    const size_t revoked = pick([](const BookedKey& key) { return key.in_set; });
    if (revoked != kNone) {
        book_.loosen(revoked).state = KeyState::kRevoked;
    }
    if (!board_.full()) {
        book_.loosen(book_.draw()).in_set = true;
    }
    book_.write(version_);
    ++happened_.reloads;
}

void Operator::reload() {
    change_set();
    hang_up_and_maybe_kill();
    settle();
}

/// Other names for all keys, until the table has no room for them.
void Operator::next_generation() {
    for (const uint32_t before = generation_; generation_ == before;) {
        ++version_;
        change_set();
        hang_up_and_maybe_kill();
        settle();
    }
}

/// Of a plan that some keys have: other figures, or its limits under other names, which begin anew.
void Operator::change_plan() {
    limits_.begin_change(book_);
    book_.write(version_);
    ++happened_.reloads;
    ++happened_.plan_changes;
    hang_up_and_maybe_kill();
    settle();
    limits_.end_change();
}

void Operator::stop_daemon() {
    kill(daemon_.pid(), SIGSTOP);
    ++happened_.daemon_stops;
    if (chance(50)) {
        change_set();
        kill(daemon_.pid(), SIGHUP);
    }
    pause_up_to(200);
    if (chance(20)) {
        restart_daemon();
    } else {
        kill(daemon_.pid(), SIGCONT);
    }
    settle();
}

/// What is in force stays, also over a kill while the bad set stands there.
void Operator::refused_set() {
    const std::string good = site_.read("keys.yaml");
    const std::string bad[] = {
        good.substr(0, good.size() - 20 - book_.random() % 30),
        good + good.substr(good.find("  - ")),
        "keys: []\n",
        good + "  - {id: \xff\xfe}\n",
        "",
    };
    site_.write("keys.yaml", bad[book_.random() % std::size(bad)]);
    if (site_.tool("reload 2>>" + site_.path("said")).status == 0) {
        violation("a bad key set was not refused");
    }
    ++happened_.refused_sets;
    if (chance(30)) {
        restart_daemon();
        daemon_.wait_ready();
    }
    pause_up_to(50);
    site_.write("keys.yaml", good);
    kill(daemon_.pid(), SIGHUP);
    settle();
}

// ------------------------------------------------------------------------------------------------------- the
// tool

/// True when the tool said that it is done. The daemon may be killed in the middle.
bool Operator::run_tool(const std::string& arguments, std::string* output) {
    Site::Ran ran{};
    std::thread tool([&] { ran = site_.tool(arguments + " 2>>" + site_.path("said")); });
    const bool killed = chance(20);
    if (killed) {
        pause_up_to(40);
        daemon_.kill9();
        ++happened_.kills;
    }
    tool.join();
    if (killed) {
        daemon_.start();
    } else if (ran.status != 0) {
        violation("apikeyctl " + arguments + ": status " + std::to_string(ran.status));
    }
    ++happened_.tool_changes;
    *output = ran.output;
    return ran.status == 0;
}

void Operator::change_by_tool() {
    const auto active = [](const BookedKey& key) { return key.in_set && key.state == KeyState::kActive; };
    const auto disabled = [](const BookedKey& key) { return key.in_set && key.state == KeyState::kDisabled; };
    const unsigned what = book_.random() % 5;
    const size_t key = pick(what == 1 ? std::function<bool(const BookedKey&)>(disabled) : active);
    if (what == 4 || key == kNone) {
        issue_or_rotate("issue --environment test", kNone);
    } else if (what == 3) {
        issue_or_rotate("rotate " + book_[key].plain.id, key);
    } else if (what == 2) {
        change_state("revoke", key, KeyState::kRevoked);
    } else {
        change_state(what == 1 ? "enable" : "disable", key,
                     what == 1 ? KeyState::kActive : KeyState::kDisabled);
    }
    settle();
}

void Operator::change_state(const char* verb, size_t key, KeyState state) {
    book_.loosen(key);
    std::string output;
    if (run_tool(verb + (" " + book_[key].plain.id), &output)) {
        book_.loosen(key).state = state;
        book_.settle();  // at once: nothing that begins now may be answered otherwise
        happened_.revocations += state == KeyState::kRevoked ? 1 : 0;
        pause_up_to(5);
    } else {
        book_.reread();
    }
}

/// `rotated`: the key that ends; kNone when there is none.
void Operator::issue_or_rotate(const std::string& arguments, size_t rotated) {
    if (board_.full()) {
        return;
    }
    if (rotated != kNone) {
        book_.loosen(rotated);
    }
    std::string output;
    const bool done = run_tool(arguments, &output);
    const size_t made =
        !output.empty() && output.back() == '\n' ? book_.book(output.substr(0, output.size() - 1)) : kNone;
    if (!done) {
        book_.reread();
        return;
    }
    if (rotated != kNone) {
        book_.loosen(rotated).state = KeyState::kRevoked;
        ++happened_.revocations;
    }
    if (made == kNone) {
        violation("apikeyctl " + arguments + " printed no key");
        return;
    }
    book_.loosen(made).in_set = true;
    book_.settle();
}

// -------------------------------------------------------------------------------------------------------
// clients

void Operator::kill_client() {
    clients_.replace(book_.random() % kClientKinds);
    ++happened_.client_deaths;
}

void Operator::stop_client() {
    const unsigned client = book_.random() % kClientKinds;
    clients_.halt(client);
    ++happened_.client_stops;
    next_generation();
    next_generation();
    if (chance(20)) {
        clients_.replace(client);
        ++happened_.client_deaths;
    } else {
        clients_.go_on(client);
    }
}

Totals Operator::totals_in_a_pause() {
    if (!board_.pause()) {
        throw std::runtime_error("a client's call does not end");
    }
    Totals totals = site_.totals();
    return totals;
}

void Operator::audit() {
    for (const std::string& difference : board_.differences(totals_in_a_pause())) {
        violation("counts: " + difference);
    }
    limits_.collect(true);
    apikey_client* client = site_.open_client();
    limits_.compare(board_, client);
    apikey_close(client);
    board_.resume();
    ++happened_.audits;
}

void Operator::truncate_or_scribble(const std::string& cells, bool truncate) {
    constexpr size_t kHeader = sizeof(apikey::shm::CellsHeader);  // without it nobody could attach
    const size_t bytes = std::filesystem::file_size(cells);
    if (truncate) {
        std::filesystem::resize_file(cells, book_.random() % 2 == 0 ? 0 : bytes / 2);
        return;
    }
    std::string noise(bytes - kHeader, '\0');
    for (char& byte : noise) {
        byte = static_cast<char>(book_.random());
    }
    std::fstream(cells, std::ios::in | std::ios::out | std::ios::binary)
        .seekp(kHeader)
        .write(noise.data(), static_cast<std::streamsize>(noise.size()));
}

/// What a client may do to the counters that it may write. Theirs, and limits, are exempt from then until the
/// spoilt file has gone; a truncated one also kills who counts in it, and keeps others from attaching.
void Operator::spoil_cells() {
    audit();
    const bool truncate = chance(30);
    const std::string cells = site_.segment("cells." + std::to_string(generation_));
    board_.allow_unavailable(truncate);
    truncate_or_scribble(cells, truncate);
    ++happened_.spoilt_cells;
    pause_up_to(300);
    if (chance(50)) {
        restart_daemon();
        settle();
    }
    if (std::filesystem::exists(cells)) {
        next_generation();
    }
    const bool gone = await([&] {
        const size_t ended = clients_.replace_ended().size();
        happened_.client_deaths += ended;
        if (ended != 0 && !truncate) {
            violation("a client was killed by counters that were scribbled on");
        }
        return !std::filesystem::exists(cells);
    });
    if (!gone) {
        violation("spoilt counters are kept: " + cells);
    }
    if (truncate) {
        clients_.replace_all();  // who could not attach waits a while before it tries again
        happened_.client_deaths += kClientKinds;
        board_.allow_unavailable(false);
    }
    board_.take_as_right(totals_in_a_pause());
    limits_.begin_anew(site_);
    board_.resume();
}

/// Another program has the usage store: counts wait in the cells, also when the daemon is killed meanwhile.
void Operator::lock_store() {
    sqlite3* opened = nullptr;
    const int rc = sqlite3_open_v2(site_.path("usage.db").c_str(), &opened, SQLITE_OPEN_READWRITE, nullptr);
    const std::unique_ptr<sqlite3, decltype(&sqlite3_close)> store(opened, sqlite3_close);
    constexpr int kPatience_ms = 5000;
    if (rc != SQLITE_OK || sqlite3_busy_timeout(opened, kPatience_ms) != SQLITE_OK ||
        sqlite3_exec(opened, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr) != SQLITE_OK) {
        throw std::runtime_error(std::string("the usage store cannot be locked: ") + sqlite3_errmsg(opened));
    }
    ++happened_.store_locks;
    pause_up_to(500);
    if (chance(50)) {
        restart_daemon();
        pause_up_to(200);
    }
    sqlite3_exec(opened, "ROLLBACK", nullptr, nullptr, nullptr);
    settle();
}

void Operator::end() {
    settle();
    audit();
    for (const int status : clients_.end_all()) {
        violation("a client ended badly, wait status " + std::to_string(status));
    }
    if (const int status = daemon_.terminate(); status != 0) {
        violation("the daemon ended badly, status " + std::to_string(status));
    }
}

std::vector<std::string> Operator::new_violations() {
    std::vector<std::string> lines;
    const std::vector<Violation> first = board_.first_violations();
    for (; given_board_ < first.size(); ++given_board_) {
        const Violation& one = first[given_board_];
        const BookedKey& key = book_[one.key];
        lines.push_back("key " + key.plain.id + " (" + (key.in_set ? "in the set, " : "not in the set, ") +
                        std::string(key_state_name(key.state)) + ") answered " + apikey_code_name(one.code) +
                        (one.expected == Expect::kValid     ? ", was VALID all the time"
                         : one.expected == Expect::kLimited ? ", was VALID all the time, within limits"
                         : one.expected == Expect::kEither  ? ", has no limit"
                                                            : ", was not valid") +
                        "; lane " + std::to_string(one.lane) + ", monotonic " + std::to_string(one.at_ns) +
                        " ns");
    }
    lines.insert(lines.end(), told_.begin() + static_cast<ptrdiff_t>(given_), told_.end());
    given_ = told_.size();
    const std::vector<std::string> limits = limits_.ledger().new_violations();
    lines.insert(lines.end(), limits.begin(), limits.end());
    return lines;
}

}  // namespace apikeyd::test
