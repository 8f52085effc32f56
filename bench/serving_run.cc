#include "bench/serving_run.h"

#include <algorithm>
#include <random>

#include "bench/generated_keys.h"

namespace apikey::bench {

KeyStream make_stream(uint64_t keys, uint32_t unknown_one_in) {
    const size_t size = keys <= 4096 ? size_t{1} << 12 : keys <= 200'000 ? size_t{1} << 18 : size_t{1} << 20;
    std::mt19937_64 random(keys);
    const KeyPicker picker(keys, 0);
    KeyStream stream;
    stream.reserve(size, size * sizeof(GeneratedKey));
    while (stream.size() < size) {
        const uint64_t number = picker.pick(random);
        if (unknown_one_in != 0 && stream.size() % unknown_one_in == 0) {
            stream.add(text(unknown_key(number)), static_cast<Expected>(APIKEY_NOT_FOUND));
            continue;
        }
        if (number % kKeysPerVictim != 0) {
            stream.add(text(known_key(number)), static_cast<Expected>(APIKEY_VALID));
        }
    }
    stream.seal();
    return stream;
}

std::string wrong_words(const char* when, const std::string& key, apikey_code code, const char* right) {
    return std::string(when) + ": " + key + " was answered " + apikey_code_name(code) + ", right is " + right;
}

double median(std::vector<double> values) {
    if (values.empty()) {
        return 0;
    }
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

Quartiles quartiles(std::vector<double> values) {
    if (values.empty()) {
        return {};
    }
    std::sort(values.begin(), values.end());
    const size_t quarter = (values.size() - 1) / 4;
    return {values[quarter], values[values.size() - 1 - quarter]};
}

FigureRow percentile_row(std::string what, const Histogram& times, double unit_ns) {
    const auto ns = [&](uint64_t value) { return static_cast<double>(value) * unit_ns; };
    return {std::move(what),
            {{"samples", static_cast<double>(times.count)},
             {"p50_ns", ns(times.percentile(0.5))},
             {"p99_ns", ns(times.percentile(0.99))},
             {"p99_9_ns", ns(times.percentile(0.999))},
             {"max_ns", ns(times.max)}}};
}

}  // namespace apikey::bench
