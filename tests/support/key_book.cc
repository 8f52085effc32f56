#include "support/key_book.h"

#include <map>
#include <stdexcept>

#include "source/yaml_source.h"

namespace apikeyd::test {

size_t KeyBook::draw() {
    keys_.push_back({draw_key(random_)});
    return board_.add(keys_.back().plain.text, Expect::kNotValid);
}

size_t KeyBook::book(const std::string& text) {
    keys_.push_back({PlainKey::of(text)});
    const size_t key = board_.add(text, Expect::kEither);
    loose_.insert(key);
    return key;
}

BookedKey& KeyBook::loosen(size_t key) {
    board_.expect(key, Expect::kEither);
    loose_.insert(key);
    return keys_[key];
}

void KeyBook::write(unsigned version) const {
    std::string rows;
    for (const BookedKey& key : keys_) {
        if (key.in_set) {
            rows +=
                key.plain.row((version != 0 ? ", name: version " + std::to_string(version) : std::string()) +
                                  ", state: " + std::string(key_state_name(key.state)) + key.terms,
                              key.owner);
        }
    }
    site_.write("keys.yaml", "version: 1\n" + head_ + "keys:\n" + rows);
}

void KeyBook::settle() {
    for (const size_t key : loose_) {
        const bool valid = keys_[key].in_set && keys_[key].state == KeyState::kActive;
        board_.expect(key, !valid               ? Expect::kNotValid
                           : keys_[key].limited ? Expect::kLimited
                                                : Expect::kValid);
        if (keys_[key].in_set && keys_[key].state == KeyState::kRevoked) {
            board_.note_revoked(key);
        }
    }
    loose_.clear();
}

void KeyBook::reread() {
    const auto rows = parse_key_rows(site_.read("keys.yaml"), site_.keys());
    if (!rows) {
        throw std::runtime_error(rows.error().message);
    }
    std::map<std::string, KeyState> states;
    for (const KeyRow& row : *rows) {
        states[row.id] = row.state;
    }
    for (const size_t key : loose_) {
        const auto found = states.find(keys_[key].plain.id);
        keys_[key].in_set = found != states.end();
        if (found != states.end()) {
            keys_[key].state = found->second;
        }
    }
}

}  // namespace apikeyd::test
