// A key store's JSON against another reader of JSON: what one takes the other takes, and they agree in what
// it says. What was made compact stays as it is.

#include <boost/json/src.hpp>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>

#include "source/json_text.h"

namespace {

using namespace apikeyd;
namespace json = boost::json;

void require(bool condition) {
    if (!condition) {
        abort();  // libFuzzer keeps the input
    }
}

bool too_large(const json::error_code& error) {
    return error == json::error::exponent_overflow || error == json::error::too_deep;
}

std::optional<json::value> other_reading(const std::string& text, json::error_code& error) {
    json::value value = json::parse(text, error);
    return error ? std::nullopt : std::optional(std::move(value));
}

void check_metadata(const std::string& text) {
    json::error_code error;
    const auto other = other_reading(text, error);
    const auto compact = compact_metadata(text);
    if (!compact) {
        const std::string& message = compact.error().message;
        const bool beyond_json = message.find("twice") != std::string::npos ||
                                 message.find("nested") != std::string::npos ||
                                 message.find("more than") != std::string::npos;
        require(!message.empty() && (beyond_json || !other || !other->is_object()));
        return;
    }
    require(other ? other->is_object() : too_large(error));
    const std::string written = compact->empty() ? "{}" : *compact;
    require(compact_metadata(written) == *compact);
    require(written.find('\n') == std::string::npos);
    require(json_members(written).size() == json_members(text).size());
    if (other) {
        const auto again = other_reading(written, error);
        require(again && *again == *other && json_members(written).size() == other->get_object().size());
    }
}

void check_words(const std::string& text) {
    const auto words = parse_word_list(text);
    json::error_code error;
    const auto other = other_reading(text, error);
    bool list = other && other->is_array();
    for (const json::value& word : list ? other->get_array() : json::array()) {
        list = list && word.is_string();
    }
    require(words.has_value() == list);
    if (!words) {
        return;
    }
    require(words->size() == other->get_array().size());
    for (size_t i = 0; i < words->size(); ++i) {
        require((*words)[i] == std::string_view(other->get_array()[i].get_string()));
    }
    require(parse_word_list(words->empty() ? "[]" : format_word_list(*words)) == *words);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string text(reinterpret_cast<const char*>(data), size);
    check_metadata(text);
    check_words(text);
    return 0;
}
