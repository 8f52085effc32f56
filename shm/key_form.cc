#include "shm/key_form.h"

#include <cstring>

namespace apikey::shm {
namespace {

constexpr char kBase62[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
constexpr unsigned kBase = 62;
constexpr unsigned kUnbiasedBytes =
    256 / kBase * kBase;  // bytes from 248 on would favour the first characters

// CRC-32 of IEEE 802.3 (reflected polynomial, initial value and final XOR all ones), eight bytes a step:
// Kounavis and Berry, "A systematic approach to building high performance software-based CRC generators",
// 2005 (slicing-by-8). A miss pays for it, so it should not dwarf the SHA-256 before it; the byte-wise loop
// would.
constexpr uint32_t kCrcPolynomial = 0xedb88320;
constexpr size_t kCrcSlices = 8;

struct CrcTables {
    uint32_t of[kCrcSlices][256];
};

constexpr CrcTables make_crc_tables() {
    CrcTables tables{};
    for (uint32_t byte = 0; byte < 256; ++byte) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; ++bit) {
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? kCrcPolynomial : 0);
        }
        tables.of[0][byte] = crc;
    }
    for (size_t slice = 1; slice < kCrcSlices; ++slice) {
        for (size_t byte = 0; byte < 256; ++byte) {
            const uint32_t crc = tables.of[slice - 1][byte];
            tables.of[slice][byte] = (crc >> 8) ^ tables.of[0][crc & 0xff];
        }
    }
    return tables;
}

constexpr CrcTables kCrc = make_crc_tables();

uint32_t crc32(const char* data, size_t len) {
    uint32_t crc = 0xffffffff;
    const char* at = data;
    const auto byte = [&at](size_t i) { return static_cast<uint8_t>(at[i]); };
    for (; len >= kCrcSlices; len -= kCrcSlices, at += kCrcSlices) {
        crc = kCrc.of[7][byte(0) ^ (crc & 0xff)] ^ kCrc.of[6][byte(1) ^ (crc >> 8 & 0xff)] ^
              kCrc.of[5][byte(2) ^ (crc >> 16 & 0xff)] ^ kCrc.of[4][byte(3) ^ (crc >> 24)] ^
              kCrc.of[3][byte(4)] ^ kCrc.of[2][byte(5)] ^ kCrc.of[1][byte(6)] ^ kCrc.of[0][byte(7)];
    }
    for (; len > 0; --len, ++at) {
        crc = (crc >> 8) ^ kCrc.of[0][byte(0) ^ (crc & 0xff)];
    }
    return ~crc;
}

/// The character at `place` of a checksum: six of them, 62^6 > 2^32, most significant first. Independent
/// divisions by constants; a chain of them would take longer than the rest of the check.
char checksum_character(uint32_t crc, size_t place) {
    constexpr uint32_t kPlaceValues[kCrcLength] = {916132832, 14776336, 238328, 3844, 62, 1};
    return kBase62[crc / kPlaceValues[place] % kBase];
}

constexpr size_t kIdAndSecretLength = kIdLength + 1 + kSecretLength;

/// How many of the characters from the id to the secret's end are not base62. Bytes all the way, for the
/// vectoriser.
uint8_t count_not_base62(const char* id) {
    uint8_t wrong = 0;
    for (size_t i = 0; i < kIdAndSecretLength; ++i) {
        const auto c = static_cast<uint8_t>(id[i]);
        const uint8_t digit = static_cast<uint8_t>(c - '0') < 10;
        const uint8_t letter = static_cast<uint8_t>((c | 0x20) - 'a') < 26;
        wrong = static_cast<uint8_t>(wrong + ((digit | letter) ^ 1));
    }
    return wrong;
}

/// Draws base62 characters from random bytes without bias.
class CharacterDraw {
  public:
    CharacterDraw(const uint8_t* random, size_t len) : random_(random), left_(len) {}

    /// False when the bytes ran out before `count` characters were drawn.
    bool draw(size_t count, char* out) {
        while (count > 0) {
            if (left_ == 0) {
                return false;
            }
            const unsigned byte = *random_++;
            --left_;
            if (byte < kUnbiasedBytes) {
                *out++ = kBase62[byte % kBase];
                --count;
            }
        }
        return true;
    }

  private:
    const uint8_t* random_;
    size_t left_;
};

}  // namespace

bool native_key_checksum_ok(const char* key, size_t key_len) {
    const char* id = native_key_id(key, key_len);
    if (id == nullptr) {
        return false;
    }
    const char* const checksum = id + kIdAndSecretLength;
    const uint32_t crc = crc32(key, static_cast<size_t>(checksum - key));
    int different = 0;
    for (size_t i = 0; i < kCrcLength; ++i) {
        different |= checksum[i] ^ checksum_character(crc, i);
    }
    // What the checksum's own characters may be follows from their being the expected ones.
    return different == 0 && count_not_base62(id) == 1;  // its underscore
}

size_t native_key_make(const char* prefix, size_t prefix_len, const uint8_t* random, size_t random_len,
                       char* out) {
    if (prefix_len == 0 || prefix_len > kPrefixLengthMax) {
        return 0;
    }
    char* const id = out + prefix_len + 1;
    char* const secret = id + kIdLength + 1;
    CharacterDraw characters(random, random_len);
    if (!characters.draw(kIdLength, id) || !characters.draw(kSecretLength, secret)) {
        explicit_bzero(out, prefix_len + 1 + kNativeTailLength);  // half a secret is nobody's
        return 0;
    }
    memcpy(out, prefix, prefix_len);
    out[prefix_len] = '_';
    id[kIdLength] = '_';
    char* const checksum = secret + kSecretLength;
    const uint32_t crc = crc32(out, static_cast<size_t>(checksum - out));
    for (size_t i = 0; i < kCrcLength; ++i) {
        checksum[i] = checksum_character(crc, i);
    }
    return static_cast<size_t>(checksum - out) + kCrcLength;
}

}  // namespace apikey::shm
