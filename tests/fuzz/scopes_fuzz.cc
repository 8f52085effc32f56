// Required expressions of scopes against a slow and obvious reading of them: what compiles and what does not,
// where the first error stands, and what is granted, for random sets of scopes in two tables that name them
// in different orders and get more of them meanwhile.
//
// The input's first byte chooses how the rest is read: as text, or each byte as one of the words that
// expressions are made of. The next four draw which scopes are defined and granted.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "apikey/apikey.h"
#include "client/scopes.h"
#include "memory_instance.h"
#include "shm/header_checks.h"
#include "shm/table_writer.h"

namespace {

using namespace apikey::fuzz;
namespace shm = apikey::shm;

constexpr uint8_t kAsWords = 1;
constexpr uint8_t kNoTable = 2;  ///< when it is compiled

const std::string kLongest = "a." + std::string(shm::kScopeNameBytes - 3, 'x');
const std::vector<std::string> kNames = {"a",   "b",   "a.x", "a.y",   "a.x.z",  "b.x",    "aa.x",
                                         "b-c", "_",   "9",   "a.*",   "b.*",    "a.x.*",  "*",
                                         "c.d", "c.e", "c.*", "a.x.q", kLongest, "never.x"};
const std::vector<std::string> kWords = {" ",    "(",       ")",  " AND ", " OR ", "AND", "OR", "\t",
                                         "a..b", "unknown", "a.", "B",     "*.a",  ".",   "and"};

void require(bool condition) {
    if (!condition) {
        abort();  // libFuzzer keeps the input
    }
}

// --------------------------------------------------------------------------------------------- the reference

std::vector<std::string> words_of(const std::string& name) {
    std::vector<std::string> words(1);
    for (const char c : name) {
        c == '.' ? void(words.emplace_back()) : words.back().push_back(c);
    }
    return words;
}

bool is_name(const std::string& name) {
    const std::vector<std::string> words = words_of(name);
    for (size_t i = 0; i < words.size(); ++i) {
        const bool star = words[i] == "*" && i + 1 == words.size();
        if (!star && (words[i].empty() || words[i].find('*') != std::string::npos)) {
            return false;
        }
    }
    return true;
}

bool covers(const std::string& granted, const std::string& required) {
    std::vector<std::string> branch = words_of(granted);
    const std::vector<std::string> words = words_of(required);
    if (branch.back() != "*") {
        return granted == required;
    }
    branch.pop_back();
    return words.size() > branch.size() && std::equal(branch.begin(), branch.end(), words.begin());
}

struct Node {
    enum class Kind { kName, kAnd, kOr } kind = Kind::kName;
    std::string name = {};
    std::vector<Node> parts = {};

    bool granted_by(const std::set<std::string>& scopes) const {
        bool any = false;
        bool all = true;
        for (const Node& part : parts) {
            const bool granted = part.granted_by(scopes);
            any = any || granted;
            all = all && granted;
        }
        for (const std::string& scope : scopes) {
            any = any || (kind == Kind::kName && covers(scope, name));
        }
        return kind == Kind::kAnd ? all : any;
    }
};

/// An expression by its grammar: any = all { OR all }, all = one { AND one }, one = name | ( any ).
class Grammar {
  public:
    /// `defined`: nullptr when every name is taken.
    Grammar(const std::string& text, const std::set<std::string>* defined) : text_(text), defined_(defined) {}

    std::optional<Node> read() {
        std::optional<Node> expression = read_any();
        skip_space();
        return expression && (at_ == text_.size() || fail()) && result_ == APIKEY_OK ? expression
                                                                                     : std::nullopt;
    }
    apikey_result result() const { return result_; }
    size_t offset() const { return at_; }
    size_t deepest() const { return deepest_; }

  private:
    bool fail(apikey_result result = APIKEY_BAD_EXPRESSION) {
        result_ = result;
        return false;
    }
    void skip_space() {
        while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) {
            ++at_;
        }
    }
    bool next_is(const std::string& word) {
        skip_space();
        const size_t end = at_ + word.size();
        return text_.compare(at_, word.size(), word) == 0 &&
               (end == text_.size() || std::string(" \t()").find(text_[end]) != std::string::npos);
    }
    std::optional<Node> read_list(Node::Kind kind, const char* word,
                                  std::optional<Node> (Grammar::*read_part)()) {
        Node node{.kind = kind};
        for (;;) {
            std::optional<Node> part = (this->*read_part)();
            if (!part) {
                return std::nullopt;
            }
            node.parts.push_back(std::move(*part));
            if (!next_is(word)) {
                return node;
            }
            at_ += std::strlen(word);
        }
    }
    std::optional<Node> read_any() { return read_list(Node::Kind::kOr, "OR", &Grammar::read_all); }
    std::optional<Node> read_all() { return read_list(Node::Kind::kAnd, "AND", &Grammar::read_one); }
    std::optional<Node> read_one() {
        skip_space();
        if (at_ == text_.size() || text_[at_] != '(') {
            return read_name();
        }
        ++at_;
        deepest_ = std::max(deepest_, ++depth_);
        std::optional<Node> inner = read_any();
        if (!inner) {
            return std::nullopt;
        }
        skip_space();
        if (at_ == text_.size() || text_[at_] != ')') {
            fail();
            return std::nullopt;
        }
        ++at_;
        --depth_;
        return inner;
    }
    std::optional<Node> read_name() {
        constexpr char kCharacters[] = "abcdefghijklmnopqrstuvwxyz0123456789_-.*";
        const size_t end = std::min(text_.find_first_not_of(kCharacters, at_), text_.size());
        Node node{.name = text_.substr(at_, end - at_)};
        if (!is_name(node.name) || node.name.size() > 63 || ++names_ > 32) {
            fail();
            return std::nullopt;
        }
        if (!is_defined(node.name)) {
            fail(APIKEY_UNKNOWN_SCOPE);
            return std::nullopt;
        }
        at_ = end;
        return node;
    }
    bool is_defined(const std::string& name) const {
        if (defined_ == nullptr || defined_->count(name) != 0) {
            return true;
        }
        for (const std::string& one : *defined_) {
            if (words_of(one).back() != "*" && covers(name, one)) {
                return true;
            }
        }
        return false;
    }

    const std::string& text_;
    const std::set<std::string>* defined_;
    size_t at_ = 0;
    size_t names_ = 0;
    size_t depth_ = 0;
    size_t deepest_ = 0;
    apikey_result result_ = APIKEY_OK;
};

// ------------------------------------------------------------------------------------------------ the client

/// A table and what it has names for.
class Table {
  public:
    explicit Table(uint32_t generation) : block_(kGeometry.file_bytes()) {
        constexpr uint8_t kUid[shm::kUidLength] = {1};
        shm::TableWriter::format(block_.data(), kGeometry, generation, 0, kUid, 42);
        reinterpret_cast<shm::TableHeader*>(block_.data())->probe_lines_max = 1;
        require(shm::check_table(block_.data(), block_.bytes(), generation, &view_) ==
                shm::AttachResult::kOk);
        writer_.emplace(block_.data(), view_, 0);
    }
    void define(const std::string& name) {
        const std::optional<uint32_t> bit = writer_->scope(name);
        require(bit.has_value());
        bits_[name] = *bit;
    }
    bool granted(const std::set<std::string>& scopes, apikey_scopes* required) const {
        uint64_t granted[apikey_scopes::kMaskWords] = {};
        for (const std::string& name : scopes) {
            granted[bits_.at(name) / 64] |= uint64_t{1} << bits_.at(name) % 64;
        }
        return apikey::client::grants(view_, granted, required);
    }
    MemoryGeneration files() const { return {view_.generation, &block_, nullptr}; }

  private:
    static constexpr shm::TableGeometry kGeometry{.slot_count = 32,
                                                  .details_bytes = 1024,
                                                  .policy_capacity = 1,
                                                  .plan_capacity = 1,
                                                  .owner_capacity = 1,
                                                  .scope_capacity = 70};
    Block block_;
    shm::TableView view_;
    std::optional<shm::PolicyWriter> writer_;
    std::map<std::string, uint32_t> bits_;
};

struct Freed {
    void operator()(apikey_client* client) const { apikey_close(client); }
    void operator()(apikey_scopes* scopes) const { apikey_scopes_free(scopes); }
};

std::string text_of(const uint8_t* data, size_t size, bool as_words) {
    std::string text;
    for (size_t i = 0; i < size; ++i) {
        const size_t word = data[i] % (kNames.size() + kWords.size());
        text += !as_words              ? std::string(1, static_cast<char>(data[i]))
                : word < kNames.size() ? kNames[word]
                                       : kWords[word - kNames.size()];
    }
    return text.substr(0, text.find('\0'));  // it ends there for a caller in C
}

/// What the client makes of it must be what the grammar says; nullptr for an error.
std::unique_ptr<apikey_scopes, Freed> compile(apikey_client* client, const std::string& text,
                                              const Grammar& grammar, bool right) {
    const std::unique_ptr<char[]> exact(new char[text.size() + 1]);
    std::memcpy(exact.get(), text.c_str(), text.size() + 1);
    apikey_scopes* scopes = nullptr;
    size_t offset = SIZE_MAX;
    const apikey_result result = apikey_scopes_compile(client, exact.get(), &scopes, &offset);
    std::unique_ptr<apikey_scopes, Freed> made(scopes);
    require((made != nullptr) == (result == APIKEY_OK));
    constexpr size_t kDeepest = 32;  // nobody promises more
    if (grammar.deepest() > kDeepest && result == APIKEY_BAD_EXPRESSION) {
        return made;
    }
    require(result == grammar.result() && right == (result == APIKEY_OK));
    require(right ? offset == SIZE_MAX : offset == grammar.offset());
    return made;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 5) {
        return 0;
    }
    uint32_t seed = 0;
    std::memcpy(&seed, data + 1, sizeof seed);
    std::minstd_rand random(seed);
    const auto chance = [&] { return random() / 16 % 2 == 0; };
    const std::string text = text_of(data + 5, size - 5, (data[0] & kAsWords) != 0);

    Table tables[] = {Table(2), Table(3)};
    std::set<std::string> defined;
    std::vector<std::string> later;
    for (size_t i = 0; i + 1 < kNames.size(); ++i) {  // the last is never defined
        chance() ? void(defined.insert(kNames[i])) : later.push_back(kNames[i]);
    }
    for (const std::string& name : defined) {
        tables[0].define(name);
    }
    for (auto name = defined.rbegin(); name != defined.rend(); ++name) {
        tables[1].define(*name);
    }

    const bool attached = (data[0] & kNoTable) == 0;
    std::optional<MemoryInstance> instance;
    if (attached) {
        instance.emplace(2, 2, std::vector{tables[0].files()});
    }
    apikey_client* client = nullptr;
    require(apikey_open(nullptr, &client) == (attached ? APIKEY_OK : APIKEY_WAITING));
    const std::unique_ptr<apikey_client, Freed> opened(client);
    Grammar grammar(text, attached ? &defined : nullptr);
    const std::optional<Node> expression = grammar.read();
    const auto scopes = compile(client, text, grammar, expression.has_value());
    if (scopes == nullptr) {
        return 0;
    }
    for (unsigned round = 0; round < 24; ++round) {
        std::set<std::string> granted;
        for (const std::string& name : defined) {
            if (chance()) {
                granted.insert(name);
            }
        }
        const Table& table = tables[round / 2 % 2];  // twice, the second time by what was kept
        require(table.granted(granted, scopes.get()) == expression->granted_by(granted));
        if (chance() && !later.empty()) {
            for (Table& one : tables) {
                one.define(later.back());
            }
            defined.insert(later.back());
            later.pop_back();
        }
    }
    return 0;
}
