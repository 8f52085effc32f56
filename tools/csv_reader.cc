#include "tools/csv_reader.h"

namespace apikeyd {

bool CsvReader::at_line_end() const {
    return at_ == text_.size() || text_[at_] == '\n' ||
           (text_[at_] == '\r' && at_ + 1 < text_.size() && text_[at_ + 1] == '\n');
}

void CsvReader::end_line() {
    if (at_ < text_.size()) {
        at_ += text_[at_] == '\r' ? 2 : 1;
        ++next_line_;
    }
}

Result<std::string> CsvReader::field() {
    std::string value;
    if (at_ == text_.size() || text_[at_] != '"') {
        for (; !at_line_end() && text_[at_] != ','; ++at_) {
            if (text_[at_] == '"') {
                return fail("a quote inside of a field (want quotes around it, and this one twice)");
            }
            value += text_[at_];
        }
        return value;
    }
    for (++at_; at_ < text_.size(); ++at_) {
        if (text_[at_] == '"' && (at_ + 1 == text_.size() || text_[at_ + 1] != '"')) {
            ++at_;
            if (!at_line_end() && text_[at_] != ',') {
                return fail("text behind a quoted field (want a comma or the end of the line)");
            }
            return value;
        }
        at_ += text_[at_] == '"' ? 1 : 0;
        next_line_ += text_[at_] == '\n' ? 1 : 0;
        value += text_[at_];
    }
    return fail("a quote that is not closed");
}

Result<std::optional<std::vector<std::string>>> CsvReader::next() {
    while (at_ < text_.size() && at_line_end()) {
        end_line();
    }
    line_ = next_line_;
    if (at_ == text_.size()) {
        return std::nullopt;
    }
    std::vector<std::string> fields;
    for (;;) {
        Result<std::string> value = field();
        if (!value) {
            return tl::unexpected(std::move(value.error()));
        }
        fields.push_back(*std::move(value));
        if (at_line_end()) {
            end_line();
            return fields;
        }
        ++at_;  // the comma
    }
}

}  // namespace apikeyd
