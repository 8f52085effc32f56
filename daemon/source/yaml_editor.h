// Edits a key set's text and keeps the comments, the order and the form of everything that is not touched.
//
// The text is kept as pieces: what stands before the keys, each key's own lines, what stands between and
// behind. An edit changes one piece and is proved by parsing that piece alone, so the cost of an edit does
// not grow with the file. A piece parses alone as it does in its place because it holds whole lines of one
// list entry at its own indentation. A list in flow form (`keys: [{…}]`, 64 KiB at most) is edited as one
// text and parsed whole.

#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "source/key_row.h"
#include "source/policy_text.h"
#include "source/store.h"
#include "source/yaml_events.h"
#include "source/yaml_locate.h"

namespace apikeyd {

class KeySetText final : public KeySet {
  public:
    /// A set without keys, as the tool writes it.
    static std::string empty_text() { return "version: 1\nkeys: []\n"; }

    /// Refuses whatever parse_key_set refuses; `file` is for its errors.
    static Result<KeySetText> parse(std::string text, const std::string& file, const YamlLimits& limits = {});

    /// Replaces the key with this id, or appends it. Only fields that differ are rewritten, in place; a key
    /// whose form defies that is rewritten whole. On an error (a field that the file format refuses, a digest
    /// that another key has) nothing has changed.
    Result<void> upsert(const KeyRow& row) override;

    /// Removes the key's lines. Comments above them stay. False when there is no such key.
    Result<bool> erase(std::string_view id) override;

    /// The row with this id, or nullptr. Valid until the next change.
    [[nodiscard]] const KeyRow* find(std::string_view id) const;
    Result<std::optional<KeyRow>> key(std::string_view id) override {
        const KeyRow* const row = find(id);
        return row != nullptr ? std::optional(*row) : std::nullopt;
    }

    Result<bool> has_keys() override { return live_ != 0; }

    [[nodiscard]] const PolicySet& policies() const override { return policies_; }

    // In yaml_editor_policies.cc: element by element where they stand, as upsert() changes keys.
    Result<void> add_policies(const PolicySet& more) override;
    Result<void> upsert_plan(const PlanRow& plan) override;
    Result<void> upsert_owner(const OwnerRow& owner) override;
    Result<void> add_scope(const std::string& scope) override;
    Result<void> erase_plan(const std::string& name) override;
    Result<void> erase_owner(const std::string& name) override;
    Result<void> erase_scope(const std::string& name) override;

    /// All rows in the order of the text.
    [[nodiscard]] std::vector<KeyRow> rows() const;
    [[nodiscard]] size_t size() const { return live_; }

    /// The text as it is now; byte for byte what was parsed when nothing was changed.
    [[nodiscard]] std::string text() const;

  private:
    struct Piece {
        std::string before;  // comments and blank lines above the key
        std::string body;    // the key's lines
        KeyRow row;
        bool live = true;
        bool proven = false;  // parsed alone, the body is the row
    };
    using Counts = boost::unordered_flat_map<std::string, size_t>;

    Result<void> split(std::string text);
    Result<void> split_block(std::string_view text, LocatedKeySet located);
    void index();
    void count(const Piece& piece);
    void discount(const Piece& piece);
    [[nodiscard]] Result<void> check_limits(const KeyRow& row) const;
    Result<void> append(const KeyRow& row);
    Result<void> replace(size_t at, const KeyRow& row);
    Result<void> check_piece(Piece& piece) const;
    [[nodiscard]] Result<void> check_whole() const;
    [[nodiscard]] Result<KeyRow> parse_piece(std::string_view body) const;
    Result<void> append_flow(const KeyRow& row);
    Result<void> replace_flow(size_t at, const KeyRow& row);
    Result<void> erase_flow(size_t at);
    Result<void> set_flow_text(std::string text, const std::vector<KeyRow>& wanted);

    using PolicyEdit = std::function<std::optional<std::string>(const LocatedText& set)>;
    using KeyTest = std::function<bool(const KeyRow& row)>;
    Result<void> edit_policies(const std::string& what, const PolicySet& wanted, const PolicyEdit& edit);
    Result<void> take_without_keys(const std::string& what, const std::string& text, const PolicySet& wanted);
    [[nodiscard]] std::string without_keys() const;
    [[nodiscard]] Result<void> check_terms_with(const std::string& what, const PlanRow& plan) const;
    /// "3 keys, the first …"; empty when there is none.
    [[nodiscard]] std::string count_keys(const KeyTest& is_one) const;

    std::string file_;
    YamlLimits limits_;
    PolicySet policies_;
    std::string head_;                // up to the colon of `keys:`; in flow form the whole text
    std::string empty_list_ = " []";  // what stands behind the colon while there are no keys
    std::string line_rest_;           // of the line that holds `keys:`
    std::string tail_;
    std::string newline_ = "\n";
    size_t indent_ = 2;  // of the dashes
    bool flow_ = false;
    std::vector<Piece> pieces_;
    size_t live_ = 0;
    // Of the pieces, so that an edit need not look at all of them.
    size_t bytes_ = 0;
    Counts environments_;
    Counts branches_;                                       // granted; they count as names of the set
    boost::unordered_flat_map<std::string, size_t> by_id_;  // to the index in pieces_
    boost::unordered_flat_map<std::string, size_t> by_digest_;
};

}  // namespace apikeyd
