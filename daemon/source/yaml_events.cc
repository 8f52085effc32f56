#include "source/yaml_events.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <istream>
#include <streambuf>

#include "base/utf8.h"
#include "base/without_secrets.h"
#include "shm/key_form.h"
#include "source/text_check.h"

namespace apikeyd {

namespace {

/// Thrown through yaml-cpp when its parser has read node_bytes_max bytes since the last event.
struct NodeTooLong {};

/// Hands a text to yaml-cpp piece by piece and counts what it has taken since the last event. Blank and
/// comment lines do not count: they leave nothing behind in the parser, and files have long ones.
class FeedBuffer : public std::streambuf {
  public:
    FeedBuffer(std::string_view text, size_t ahead_max) : text_(text), ahead_max_(ahead_max) {}

    void note_event() { ahead_ = 0; }

  protected:
    // yaml-cpp reads the first four bytes one by one (and puts them back), all others through sgetn.
    int_type underflow() override {
        return at_ < text_.size() ? traits_type::to_int_type(text_[at_]) : traits_type::eof();
    }
    int_type uflow() override {
        return at_ < text_.size() ? traits_type::to_int_type(text_[at_++]) : traits_type::eof();
    }
    int_type pbackfail(int_type) override {
        return at_ > 0 ? traits_type::to_int_type(text_[--at_]) : traits_type::eof();
    }
    std::streamsize xsgetn(char* out, std::streamsize wanted) override {
        const std::string_view piece =
            text_.substr(at_, static_cast<size_t>(std::max<std::streamsize>(wanted, 0)));
        std::memcpy(out, piece.data(), piece.size());
        at_ += piece.size();
        count(piece);
        if (ahead_ > ahead_max_) {
            throw NodeTooLong{};
        }
        return static_cast<std::streamsize>(piece.size());
    }

  private:
    enum class Line : uint8_t { kStart, kComment, kContent };

    void count(std::string_view piece) {
        while (!piece.empty()) {
            const size_t newline = piece.find('\n');
            const std::string_view part = piece.substr(0, newline);
            size_t i = 0;
            if (line_ == Line::kStart) {
                i = std::min(part.find_first_not_of(" \t\r"), part.size());
                if (i < part.size()) {
                    line_ = part[i] == '#' ? Line::kComment : Line::kContent;
                }
            }
            if (line_ == Line::kContent) {
                ahead_ += part.size();
            }
            if (newline == std::string_view::npos) {
                return;
            }
            line_ = Line::kStart;
            piece.remove_prefix(newline + 1);
        }
    }

    std::string_view text_;
    size_t ahead_max_;
    size_t at_ = 0;
    size_t ahead_ = 0;
    Line line_ = Line::kStart;
};

/// Turns yaml-cpp's events into ours and refuses what a key set or configuration has no use for.
class Handler final : public YAML::EventHandler {
  public:
    Handler(std::string_view text, size_t base, const YamlLimits& limits, FeedBuffer& feed,
            YamlVisitor& visitor, YamlReporter& reporter)
        : text_(text), base_(base), limits_(limits), feed_(feed), visitor_(visitor), reporter_(reporter) {}

    void OnDocumentStart(const YAML::Mark& mark) override {
        if (++documents_ > 1) {
            stop(note(mark), "something follows the end of the first document (want one YAML document)");
        }
    }
    void OnDocumentEnd() override {
        // yaml-cpp 0.7 takes a quote that is still open at the end of the text for closed, if a newline
        // stands there.
        const char quote = last_quoted_.offset < text_.size() ? text_[last_quoted_.offset] : '\0';
        if ((quote == '"' || quote == '\'') &&
            quoted_scalar_end(text_, last_quoted_.offset) == std::string_view::npos) {
            stop(last_quoted_, "a quote that is never closed (want one at the end of the value)");
        }
    }
    void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
        const YamlPlace place = node(mark, anchor);
        visitor_.on_scalar({place, {}, YamlScalarKind::kNull});
    }
    void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
        const YamlPlace place = note(mark);
        reporter_.add(place, "an alias (*name) is not allowed (write the value out)");
        visitor_.on_scalar({place, {}, YamlScalarKind::kNull});
    }
    void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  const std::string& value) override {
        const YamlPlace place = node(mark, anchor);
        if (value.size() > limits_.scalar_bytes_max) {
            stop(place, "a value of " + std::to_string(value.size()) + " bytes (want at most " +
                            std::to_string(limits_.scalar_bytes_max) + ")");
        }
        const bool plain = tag == "?";
        last_quoted_ = plain ? last_quoted_ : place;
        visitor_.on_scalar({place, value, plain ? YamlScalarKind::kPlain : YamlScalarKind::kQuoted});
    }
    void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                         YAML::EmitterStyle::value style) override {
        visitor_.on_sequence_begin(deeper(mark, anchor), style == YAML::EmitterStyle::Flow);
    }
    void OnSequenceEnd() override {
        feed_.note_event();
        --depth_;
        visitor_.on_sequence_end();
    }
    void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                    YAML::EmitterStyle::value style) override {
        visitor_.on_map_begin(deeper(mark, anchor), style == YAML::EmitterStyle::Flow);
    }
    void OnMapEnd() override {
        feed_.note_event();
        --depth_;
        visitor_.on_map_end();
    }

    [[nodiscard]] YamlPlace place(const YAML::Mark& mark) const {
        const size_t offset = std::min(base_ + static_cast<size_t>(std::max(mark.pos, 0)), text_.size());
        return {static_cast<uint32_t>(std::max(mark.line, 0)) + 1, offset};
    }
    [[nodiscard]] YamlPlace last_place() const { return last_; }
    [[nodiscard]] int documents() const { return documents_; }

  private:
    [[noreturn]] void stop(YamlPlace place, std::string_view what) {
        reporter_.add(place, what);
        throw YamlStop{};
    }
    YamlPlace note(const YAML::Mark& mark) {
        feed_.note_event();
        return last_ = place(mark);
    }
    /// Tags and anchors are told by the byte at the node: yaml-cpp reports some tags (`!`) as if there were
    /// none.
    YamlPlace node(const YAML::Mark& mark, YAML::anchor_t anchor) {
        const YamlPlace where = note(mark);
        const char first = where.offset < text_.size() ? text_[where.offset] : '\0';
        if (anchor != YAML::NullAnchor || first == '&') {
            reporter_.add(where, "an anchor (&name) is not allowed (write each value out)");
        } else if (first == '!') {
            reporter_.add(where, "a tag (!name) is not allowed (want a plain value)");
        }
        return where;
    }
    YamlPlace deeper(const YAML::Mark& mark, YAML::anchor_t anchor) {
        const YamlPlace where = node(mark, anchor);
        if (++depth_ > limits_.depth_max) {
            stop(where,
                 "nested deeper than " + std::to_string(limits_.depth_max) + " levels (want a flat file)");
        }
        return where;
    }

    std::string_view text_;
    size_t base_;  // yaml-cpp counts from behind the byte order mark
    const YamlLimits& limits_;
    FeedBuffer& feed_;
    YamlVisitor& visitor_;
    YamlReporter& reporter_;
    YamlPlace last_;
    YamlPlace last_quoted_{1, std::string_view::npos};
    int depth_ = 0;
    int documents_ = 0;
};

bool check_bytes(std::string_view text, const YamlLimits& limits, YamlReporter& reporter) {
    if (text.size() > limits.file_bytes_max) {
        reporter.add({}, "the file has " + std::to_string(text.size()) + " bytes (want at most " +
                             std::to_string(limits.file_bytes_max) + ")");
        return false;
    }
    const TextFault fault = check_text(text, limits.line_bytes_max);
    if (!fault.what.empty()) {
        reporter.add({static_cast<uint32_t>(fault.line), fault.offset}, fault.what);
        return false;
    }
    return true;
}

}  // namespace

bool run_yaml_events(std::string_view text, const YamlLimits& limits, YamlVisitor& visitor,
                     YamlReporter& reporter) {
    if (!check_bytes(text, limits, reporter)) {
        return false;
    }
    const size_t base = byte_order_mark_length(text);
    FeedBuffer feed(text.substr(base), limits.node_bytes_max);
    Handler handler(text, base, limits, feed, visitor, reporter);
    try {
        std::istream stream(&feed);
        YAML::Parser parser(stream);
        while (parser.HandleNextDocument(handler)) {
            feed.note_event();
        }
        if (handler.documents() == 0) {
            visitor.on_scalar({YamlPlace{}, {}, YamlScalarKind::kNull});
        }
    } catch (const YamlStop&) {
        return false;
    } catch (const NodeTooLong&) {
        reporter.add(
            handler.last_place(),
            "the value that follows here runs on for more than " + std::to_string(limits.node_bytes_max) +
                " bytes (close the quote or bracket, or write the list in lines that start with '- ')");
    } catch (const YAML::Exception& e) {
        // Its messages name no content but an anchor's name.
        reporter.add(handler.place(e.mark), "broken YAML: " + yaml_quote(e.msg) + " (want well-formed YAML)");
    }
    return reporter.ok();
}

void YamlReporter::add(YamlPlace place, std::string_view what) {
    ++errors_.total;
    if (errors_.messages.size() < kYamlErrorsKept) {
        errors_.messages.push_back(word(place).append(": ").append(what));
    }
}

std::string YamlReporter::word(YamlPlace place) const {
    const size_t offset = std::min(place.offset, text_.size());
    size_t column = 1;
    for (size_t i = offset; i > 0 && text_[i - 1] != '\n'; --i) {
        const bool continuation = (static_cast<unsigned char>(text_[i - 1]) & 0xC0u) == 0x80;
        column += continuation ? 0 : 1;
    }
    if (place.line == 1 && column > 1) {
        column -= byte_order_mark_length(text_) != 0 ? 1 : 0;
    }
    return file_ + ":" + std::to_string(place.line) + ":" + std::to_string(column);
}

std::string YamlErrors::joined() const {
    std::string all;
    for (const std::string& message : messages) {
        all += all.empty() ? "" : "\n";
        all += message;
    }
    if (total > messages.size()) {
        all += "\n(and " + std::to_string(total - messages.size()) + " more errors)";
    }
    return all;
}

std::string yaml_quote(std::string_view whole_text) {
    constexpr size_t kShownMax = 48;
    if (apikey::shm::native_key_id(whole_text.data(), whole_text.size()) != nullptr) {
        return "(what looks like a key; not shown)";
    }
    const std::string masked = without_secrets(whole_text);
    const std::string_view text = masked;
    std::string out = "'";
    size_t shown = 0;
    for (size_t i = 0; i < text.size(); ++shown) {
        if (shown == kShownMax) {
            out += "…";
            break;
        }
        char32_t code_point = 0;
        const size_t length = std::max<size_t>(utf8_sequence(text.substr(i), code_point), 1);
        if (misleads(code_point)) {
            char escaped[16];
            std::snprintf(escaped, sizeof escaped, "\\u%04X", static_cast<unsigned>(code_point));
            out += escaped;
        } else {
            out += text.substr(i, length);
        }
        i += length;
    }
    return out + "'";
}

}  // namespace apikeyd
