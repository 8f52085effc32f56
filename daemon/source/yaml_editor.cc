#include "source/yaml_editor.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "shm/scope_name.h"
#include "source/json_text.h"
#include "source/row_text.h"

namespace apikeyd {

namespace {

std::string digest_key(const KeyRow& row) {
    return {reinterpret_cast<const char*>(row.digest.data()), row.digest.size()};
}

/// Drops `file:line:column: ` of a piece's error: those places mean nothing to the caller.
Error without_place(const Error& error, const std::string& id) {
    std::string text = error.message.substr(0, error.message.find('\n'));
    const size_t key = text.find(": key ");
    return {key == std::string::npos ? "key " + id + ": " + text : text.substr(key + 2)};
}

bool only_spaces(std::string_view text) {
    return text.find_first_not_of(' ') == std::string_view::npos;
}

Error odd_form(const std::string& file, std::string_view what) {
    return {file + ": " + std::string(what) +
            " is written in a form that cannot be edited (want each key in lines of its own, the first "
            "starting with '- ')"};
}

std::vector<std::string> environment_of(const KeyRow& row) {
    return row.environment.empty() ? std::vector<std::string>() : std::vector{row.environment};
}

std::vector<std::string> branches_of(const KeyRow& row) {
    std::vector<std::string> branches;
    std::copy_if(terms_of(row).scopes.begin(), terms_of(row).scopes.end(), std::back_inserter(branches),
                 apikey::shm::is_branch);
    return branches;
}

template <typename Counts>
void drop(Counts& counts, const std::vector<std::string>& names) {
    for (const std::string& name : names) {
        if (const auto found = counts.find(name); --found->second == 0) {
            counts.erase(found);
        }
    }
}

/// How many names are counted when those of one row come in the place of those of another.
template <typename Counts>
size_t names_with(const Counts& counts, const std::vector<std::string>& gone,
                  const std::vector<std::string>& come) {
    size_t names = counts.size();
    for (const std::string& name : gone) {
        names -= counts.at(name) == 1 ? 1 : 0;
    }
    for (const std::string& name : come) {
        const auto found = counts.find(name);
        const bool only_in_gone = found != counts.end() && found->second == 1 &&
                                  std::find(gone.begin(), gone.end(), name) != gone.end();
        names += found == counts.end() || only_in_gone ? 1 : 0;
    }
    return names;
}

std::string spliced(std::string_view text, TextRange range, std::string_view with) {
    return std::string(text.substr(0, range.begin)).append(with).append(text.substr(range.end));
}

}  // namespace

Result<KeySetText> KeySetText::parse(std::string text, const std::string& file, const YamlLimits& limits) {
    KeySetText set;
    set.file_ = file;
    set.limits_ = limits;
    if (auto done = set.split(std::move(text)); !done) {
        return tl::unexpected(done.error());
    }
    return set;
}

Result<void> KeySetText::split(std::string text) {
    auto located = locate_key_set(text, file_, Locate::kKeys, limits_);
    if (!located) {
        return tl::unexpected(located.error());
    }
    policies_ = located->policies;
    const KeySetSpans& spans = located->spans;
    const size_t first_line = line_end(text, 0);
    newline_ = first_line >= 2 && text[first_line - 2] == '\r' ? "\r\n" : "\n";
    pieces_.clear();
    const size_t name_column = spans.keys_name.begin - line_begin(text, spans.keys_name.begin);
    const std::string_view view(text);
    const std::string_view list = view.substr(spans.keys_colon_end, spans.keys.end - spans.keys_colon_end);
    const bool name_alone = only_spaces(view.substr(spans.keys_name.begin - name_column, name_column));
    const bool plain_empty =
        located->rows.empty() && !spans.root_flow && name_alone && list.find('#') == std::string_view::npos;
    if (!spans.flow) {
        return split_block(view, *std::move(located));
    }
    if (plain_empty) {  // `keys: []`: ready to become a list in block form
        flow_ = false;
        indent_ = name_column + 2;
        head_ = view.substr(0, spans.keys_colon_end);
        empty_list_ = list;
        const size_t rest_end = line_end(view, spans.keys.end);
        line_rest_ = view.substr(spans.keys.end, rest_end - spans.keys.end);
        tail_ = view.substr(rest_end);
    } else {
        flow_ = true;
        for (KeyRow& row : located->rows) {
            pieces_.push_back({.before = {}, .body = {}, .row = std::move(row)});
        }
        head_ = std::move(text);
    }
    index();
    return {};
}

Result<void> KeySetText::split_block(std::string_view text, LocatedKeySet located) {
    const KeySetSpans& spans = located.spans;
    flow_ = false;
    head_ = text.substr(0, spans.keys_colon_end);
    size_t at = line_end(text, spans.keys_colon_end);
    line_rest_ = text.substr(spans.keys_colon_end, at - spans.keys_colon_end);
    for (size_t i = 0; i < located.rows.size(); ++i) {
        const size_t dash = skip_blanks_and_comments(text, at);
        const size_t begin = line_begin(text, dash);
        if (dash >= text.size() || text[dash] != '-' || begin < at ||
            !only_spaces(text.substr(begin, dash - begin))) {
            return tl::unexpected(odd_form(file_, "key " + located.rows[i].id));
        }
        const size_t end = line_end(text, spans.rows[i].map.end);
        indent_ = dash - begin;
        pieces_.push_back({.before = std::string(text.substr(at, begin - at)),
                           .body = std::string(text.substr(begin, end - begin)),
                           .row = std::move(located.rows[i])});
        at = end;
    }
    tail_ = text.substr(at);
    index();
    return {};
}

void KeySetText::index() {
    by_id_.clear();
    by_digest_.clear();
    live_ = pieces_.size();
    bytes_ = 0;
    environments_.clear();
    branches_.clear();
    for (size_t i = 0; i < pieces_.size(); ++i) {
        count(pieces_[i]);
        by_id_.emplace(pieces_[i].row.id, i);
        by_digest_.emplace(digest_key(pieces_[i].row), i);
    }
}

void KeySetText::count(const Piece& piece) {
    bytes_ += piece.before.size() + piece.body.size();
    if (!piece.row.environment.empty()) {
        ++environments_[piece.row.environment];
    }
    for (const std::string& branch : branches_of(piece.row)) {
        ++branches_[branch];
    }
}

void KeySetText::discount(const Piece& piece) {
    bytes_ -= piece.before.size() + piece.body.size();
    drop(environments_, environment_of(piece.row));
    drop(branches_, branches_of(piece.row));
}

const KeyRow* KeySetText::find(std::string_view id) const {
    const auto found = by_id_.find(std::string(id));
    return found == by_id_.end() ? nullptr : &pieces_[found->second].row;
}

std::vector<KeyRow> KeySetText::rows() const {
    std::vector<KeyRow> rows;
    rows.reserve(live_);
    for (const Piece& piece : pieces_) {
        if (piece.live) {
            rows.push_back(piece.row);
        }
    }
    return rows;
}

std::string KeySetText::text() const {
    if (flow_) {
        return head_;
    }
    std::string out = head_;
    const bool comment_touches = line_rest_.starts_with('#');  // `keys: []# none`
    out += live_ == 0 ? empty_list_ : comment_touches ? " " : "";
    out += line_rest_;
    for (const Piece& piece : pieces_) {
        out += piece.before;
        out += piece.body;
    }
    return out += tail_;
}

/// The row that `body` holds when it is parsed alone.
Result<KeyRow> KeySetText::parse_piece(std::string_view body) const {
    const std::string text = "keys:" + newline_ + std::string(body);
    YamlLimits part = limits_;
    part.whole = false;
    auto rows = parse_key_rows(text, file_, part);
    if (!rows) {
        return tl::unexpected(rows.error());
    }
    if (rows->size() != 1) {
        return fail("not one key");
    }
    return std::move(rows->front());
}

/// Proves that the bounds of a piece are right before anything beside or in it is changed.
Result<void> KeySetText::check_piece(Piece& piece) const {
    if (piece.proven) {
        return {};
    }
    const auto row = parse_piece(piece.body);
    if (!row || *row != piece.row) {
        return tl::unexpected(odd_form(file_, "key " + piece.row.id));
    }
    piece.proven = true;
    return {};
}

/// The limits that only the whole set shows. A set beyond them would be refused by whoever reads it next, the
/// tool that has to revoke a key in it included.
Result<void> KeySetText::check_limits(const KeyRow& row) const {
    const auto present = by_id_.find(row.id);
    const Piece* const old = present != by_id_.end() ? &pieces_[present->second] : nullptr;
    const KeyRow none;
    const KeyRow& gone = old != nullptr ? old->row : none;
    const size_t environments = names_with(environments_, environment_of(gone), environment_of(row));
    const size_t names = policies_.scopes.size() + names_with(branches_, branches_of(gone), branches_of(row));
    const size_t bytes = head_.size() + line_rest_.size() + tail_.size() + bytes_ -
                         (old != nullptr ? old->body.size() : 0) +
                         block_key_row(row, indent_, newline_).size();
    if (environments > kEnvironmentsMax) {
        return fail("key " + row.id + ": environment: " + yaml_quote(row.environment) +
                    " is one too many (want at most " + std::to_string(kEnvironmentsMax) +
                    " different ones in a key set)");
    }
    if (names > kScopesMax) {
        return fail("key " + row.id + ": scopes: " + std::to_string(names) +
                    " names and branches in the key set (want at most " + std::to_string(kScopesMax) + ")");
    }
    if (old == nullptr && live_ >= limits_.keys_max) {
        return fail("key " + row.id + ": more than " + std::to_string(limits_.keys_max) +
                    " keys (the limit)");
    }
    if (const auto fault = terms_fault(terms_of(row), policies_)) {
        return fail("key " + row.id + ": " + *fault);
    }
    if (bytes > limits_.file_bytes_max) {
        return fail("key " + row.id + ": the key set would have more than " +
                    std::to_string(limits_.file_bytes_max) + " bytes (the limit)");
    }
    return {};
}

Result<void> KeySetText::upsert(const KeyRow& wanted) {
    KeyRow row = wanted;
    if (!row.metadata.empty()) {
        auto compact = compact_metadata(row.metadata);
        if (!compact) {
            return tl::unexpected(Error{"key " + row.id + ": metadata: " + compact.error().message});
        }
        row.metadata = *std::move(compact);
    }
    if (auto fits = check_limits(row); !fits) {
        return fits;
    }
    const auto present = by_id_.find(row.id);
    const auto same_digest = by_digest_.find(digest_key(row));
    if (same_digest != by_digest_.end() &&
        (present == by_id_.end() || same_digest->second != present->second)) {
        return fail("key " + row.id + ": sha256: the same digest as key " +
                    pieces_[same_digest->second].row.id + " (want each key once)");
    }
    if (present == by_id_.end()) {
        return flow_ ? append_flow(row) : append(row);
    }
    const size_t at = present->second;
    if (pieces_[at].row == row) {
        return {};
    }
    return flow_ ? replace_flow(at, row) : replace(at, row);
}

Result<void> KeySetText::append(const KeyRow& row) {
    std::string body = block_key_row(row, indent_, newline_);
    const auto parsed = parse_piece(body);
    if (!parsed || *parsed != row) {
        return tl::unexpected(parsed ? Error{"key " + row.id + ": cannot be written as YAML"}
                                     : without_place(parsed.error(), row.id));
    }
    const auto last =
        std::find_if(pieces_.rbegin(), pieces_.rend(), [](const Piece& piece) { return piece.live; });
    if (last != pieces_.rend()) {
        if (auto sound = check_piece(*last); !sound) {
            return sound;
        }
    }
    pieces_.push_back({.before = {}, .body = std::move(body), .row = row, .live = true, .proven = true});
    ++live_;
    if (live_ == 1) {
        if (auto sound = check_whole(); !sound) {
            pieces_.pop_back();
            --live_;
            return sound;
        }
    }
    count(pieces_.back());
    by_id_.emplace(row.id, pieces_.size() - 1);
    by_digest_.emplace(digest_key(row), pieces_.size() - 1);
    return {};
}

/// The first key and the last change the line of `keys:` too, which no piece shows. Such a set is small.
Result<void> KeySetText::check_whole() const {
    const auto all = parse_key_rows(text(), file_, limits_);
    if (!all || *all != rows()) {
        return tl::unexpected(odd_form(file_, "the list of keys"));
    }
    return {};
}

Result<void> KeySetText::replace(size_t at, const KeyRow& row) {
    Piece& piece = pieces_[at];
    if (auto sound = check_piece(piece); !sound) {
        return sound;
    }
    const std::string prefix = "keys:" + newline_;
    const std::string text = prefix + piece.body;
    std::string body;
    YamlLimits part = limits_;
    part.whole = false;
    if (const auto located = locate_key_set(text, file_, Locate::kFields, part)) {
        body =
            edit_key_row(text, located->spans.rows.front(), piece.row, row, newline_).substr(prefix.size());
    }
    auto parsed = parse_piece(body);
    if (!parsed || *parsed != row) {
        // Written whole, it loses the comments among its fields, but a revocation must not fail because of a
        // form.
        const size_t indent = piece.body.find_first_not_of(' ');
        body = block_key_row(row, indent, newline_);
        parsed = parse_piece(body);
        if (!parsed || *parsed != row) {
            return tl::unexpected(parsed ? Error{"key " + row.id + ": cannot be written as YAML"}
                                         : without_place(parsed.error(), row.id));
        }
    }
    by_digest_.erase(digest_key(piece.row));
    by_digest_.emplace(digest_key(row), at);
    discount(piece);
    piece.body = std::move(body);
    piece.row = row;
    piece.proven = true;
    count(piece);
    return {};
}

Result<bool> KeySetText::erase(std::string_view id) {
    const auto found = by_id_.find(std::string(id));
    if (found == by_id_.end()) {
        return false;
    }
    const size_t at = found->second;
    if (flow_) {  // all of it is parsed anew, and may then be ready for the block form
        const auto done = erase_flow(at);
        return done ? Result<bool>(true) : tl::unexpected(done.error());
    }
    Piece& piece = pieces_[at];
    if (auto sound = check_piece(piece); !sound) {
        return tl::unexpected(sound.error());
    }
    const Piece before = piece;
    piece.body.clear();
    piece.live = false;
    --live_;
    if (live_ == 0) {
        if (auto sound = check_whole(); !sound) {
            piece = before;
            ++live_;
            return tl::unexpected(sound.error());
        }
    }
    discount(before);
    bytes_ += piece.before.size();  // comments above it stay
    by_digest_.erase(digest_key(piece.row));
    by_id_.erase(found);
    return true;
}

/// Takes `text` when it holds exactly the rows `wanted`.
Result<void> KeySetText::set_flow_text(std::string text, const std::vector<KeyRow>& wanted) {
    auto fresh = parse(std::move(text), file_, limits_);
    if (!fresh) {
        return tl::unexpected(fresh.error());
    }
    if (fresh->rows() != wanted) {
        return tl::unexpected(odd_form(file_, "the list of keys"));
    }
    *this = *std::move(fresh);
    return {};
}

Result<void> KeySetText::replace_flow(size_t at, const KeyRow& row) {
    const auto located = locate_key_set(head_, file_, Locate::kFields, limits_);
    if (!located) {
        return tl::unexpected(located.error());
    }
    std::vector<KeyRow> wanted = rows();
    wanted[at] = row;
    const RowSpan& span = located->spans.rows[at];
    if (set_flow_text(edit_key_row(head_, span, pieces_[at].row, row, newline_), wanted)) {
        return {};
    }
    auto whole = set_flow_text(spliced(head_, span.map, flow_key_row(row)), wanted);
    return whole ? whole : tl::unexpected(without_place(whole.error(), row.id));
}

Result<void> KeySetText::append_flow(const KeyRow& row) {
    const auto located = locate_key_set(head_, file_, Locate::kKeys, limits_);
    if (!located) {
        return tl::unexpected(located.error());
    }
    std::vector<KeyRow> wanted = rows();
    wanted.push_back(row);
    const KeySetSpans& spans = located->spans;
    const std::string body = flow_key_row(row);
    std::string text;
    if (spans.rows.empty()) {
        const size_t at = spans.keys.begin + 1;
        text = spliced(head_, {at, at}, body);
    } else {
        const TextRange last = spans.rows.back().map;
        const size_t line = line_begin(head_, last.begin);
        const std::string lead = head_.substr(line, last.begin - line);
        const size_t next = skip_blanks_and_comments(head_, last.end);
        const bool comma = next < head_.size() && head_[next] == ',';
        const size_t after = comma ? next + 1 : last.end;
        const size_t own_line = line_end(head_, after);
        if (only_spaces(lead) && own_line <= skip_blanks_and_comments(head_, after)) {
            text = spliced(head_, {own_line, own_line}, lead + body + newline_);
            text = comma ? text : spliced(text, {last.end, last.end}, ",");
        } else {
            text = spliced(head_, {after, after}, (comma ? " " : ", ") + body);
        }
    }
    auto done = set_flow_text(std::move(text), wanted);
    return done ? done : tl::unexpected(without_place(done.error(), row.id));
}

Result<void> KeySetText::erase_flow(size_t at) {
    const auto located = locate_key_set(head_, file_, Locate::kKeys, limits_);
    if (!located) {
        return tl::unexpected(located.error());
    }
    std::vector<KeyRow> wanted = rows();
    wanted.erase(wanted.begin() + static_cast<std::ptrdiff_t>(at));
    const std::vector<RowSpan>& spans = located->spans.rows;
    const TextRange row = spans[at].map;
    std::string text = head_;
    const size_t next = skip_blanks_and_comments(text, row.end);
    if (next < text.size() && text[next] == ',') {
        const size_t blanks = text.find_first_not_of(' ', next + 1) - (next + 1);
        text.erase(next, 1 + (next == row.end ? blanks : 0));
        text.erase(row.begin, row.end - row.begin);
    } else {
        text.erase(row.begin, row.end - row.begin);
        if (at > 0) {
            text.erase(skip_blanks_and_comments(text, spans[at - 1].map.end), 1);
        }
    }
    return set_flow_text(std::move(text), wanted);
}

}  // namespace apikeyd
