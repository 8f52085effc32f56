// Promise: a key store's name is understood, or refused with what to write instead; and nothing of a password
// that was written into it, in whichever spelling, is repeated.

#include "source/store_name.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "postgres/place.h"

namespace apikeyd {
namespace {

/// Stands in each part of each password below, and nowhere else.
constexpr std::string_view kOfPassword = "zq";

/// Empty: it was accepted.
std::string refusal(std::string_view place) {
    const Result<void> checked = check_postgres_place(place);
    return checked ? "" : checked.error().message;
}

struct Refused {
    std::string place;
    std::string shown;  ///< of the place
    std::string said;   ///< what the fault begins with
};

void expect_refused(const std::vector<Refused>& cases) {
    for (const auto& [place, shown, said] : cases) {
        const std::string message = refusal(place);
        const std::string wanted = "key store postgresql:" + shown + ": " + said;
        EXPECT_EQ(message.substr(0, wanted.size()), wanted) << place << "\n" << message;
        EXPECT_EQ(shown_place(place), shown) << place;
        EXPECT_EQ(message.find(kOfPassword), std::string::npos) << place << "\n" << message;
        const Result<StoreName> named = store_named("postgresql:" + place);
        ASSERT_FALSE(named) << place;
        EXPECT_EQ(named.error().message, message);
    }
}

const std::string kPassword = "a password stands in it, behind the user; keep it in a password file";
const std::string kSecret =
    "a password or another secret stands in it as a parameter; keep it in a password file";
const std::string kStrayAt = "an '@' stands elsewhere than behind the user; write %40 there";
const std::string kPort = "behind a host's ':' stands something else than a port's number";
const std::string kBrackets = "an IPv6 address stands in '[' and ']', with nothing else but ':' and a port";
const std::string kPercent = "a '%' has no two hexadecimal digits behind it";
const std::string kNoParameter = "a '=' or '&' stands before the '?' that parameters begin with";
const std::string kParameters = "its parameters are written name=value, with '&' between two";

TEST(source_PostgresPlace, WhatLibpqUnderstandsIsAcceptedAndShownWhole) {
    for (const std::string place : {
             "//",
             "///",
             "///keys",
             "//db.example",
             "//db.example/keys",
             "//db.example:5432/keys",
             "//apikeyd@db.example:5432/keys?sslmode=verify-full&connect_timeout=3",
             "//apikeyd@/keys?host=%2Frun%2Fpostgresql&port=5433",
             "//user%40tenant@db.example/keys",
             "//%2Fvar%2Frun%2Fpostgresql/keys",
             "//[2001:db8::1]:5432,[::1],127.0.0.1:1/keys?target_session_attrs=read-write",
             "//a:1,b:2,c/keys",
             "//h:/keys",  // the default port
             "//h?dbname=keys",
             "//h/keys?",
             "//h/keys?sslmode=require&",
             "//h/keys?user=apikeyd&options=-c%20search_path%3Dapikeyd",
             "//h/keys?passfile=/etc/apikeyd/pgpass&sslcert=/c.pem&sslkey=/c.key",
             "//h/keys?require_auth=password,scram-sha-256",
             "//h/keys?application_name=",
             "//h/my%20passwords",
             "//password@h/secret",
             "//h/a/b:c",
             "//\xC3\xA4.example/\xE2\x82\xAC",
         }) {
        EXPECT_EQ(refusal(place), "") << place;
        EXPECT_EQ(shown_place(place), place);
        const Result<StoreName> named = store_named("postgresql:" + place);
        ASSERT_TRUE(named) << place << ": " << named.error().message;
        EXPECT_EQ(named->kind, StoreKind::kPostgres);
        EXPECT_EQ(named->place, place);
        EXPECT_FALSE(named->is_file());
        EXPECT_EQ(named->text(), "postgresql:" + place);
        EXPECT_EQ(named->shown(), named->text());
    }
}

TEST(source_PostgresPlace, APasswordBehindTheUserIsRefused) {
    expect_refused({
        {"//apikeyd:zq@h/keys", "//apikeyd...", kPassword},
        {"//:zq@h/keys", "//...", kPassword},
        {"//apikeyd:@h/keys", "//apikeyd...", kPassword},
        {"//apikeyd%3Azq@h/keys", "//apikeyd...", kPassword},
        {"//apikeyd%3azq@h/keys", "//apikeyd...", kPassword},
        {"//%61pikeyd:zq@h/keys", "//...", kPassword},
        {"//apikeyd:zq:zq@h/keys", "//apikeyd...", kPassword},
        {"//apikeyd:zq%40zq@h/keys", "//apikeyd...", kPassword},
        {"//apikeyd:zq?zq@h/keys", "//apikeyd...", kPassword},
        {"//apikeyd:zq#zq@h/keys", "//apikeyd...", kPassword},
        {"//apikeyd:zq&zq=zq@h/keys", "//apikeyd...", kPassword},
        {"//apikeyd:zq[zq@h/keys", "//apikeyd...", kPassword},
        {"//apikeyd:zq@zq@h/keys", "//apikeyd...", kPassword},
        {"//apikeyd:zq@", "//apikeyd...", kPassword},
        {"//apikeyd:zq@h/keys?password=zq", "//apikeyd...", kPassword},
        {"//h?application_name=a:zq@h", "//h...", kPassword},  // all before '@' is the user and the password
    });
}

TEST(source_PostgresPlace, APasswordThatTakesTheUriApartElsewhereIsRefused) {
    expect_refused({{"//apikeyd:zq/zq@h/keys", "//apikeyd...", kStrayAt},
                    {"//apikeyd:12/zq@h/keys", "//apikeyd...", kStrayAt},
                    {"//apikeyd:zq/zq?zq@h/keys", "//apikeyd...", kStrayAt},
                    {"//apikeyd:12/34?zq=zq@h/keys", "//apikeyd...", kStrayAt},
                    {"//apikeyd/zq@h/keys", "//apikeyd...", kStrayAt},
                    {"//apikeyd@zq@h/keys", "//apikeyd...", kStrayAt},
                    {"//apikeyd@h/keys@zq", "//apikeyd...", kStrayAt},
                    {"//h?password=zq@zq&sslmode=require", "//h...", kStrayAt},
                    {"//h?passfile=zq@zq", "//h...", kStrayAt},
                    {"//h/keys?password=zq@zq", "//h...", kStrayAt},
                    {"//h/keys?user=me@tenant", "//h...", kStrayAt},
                    {"//apikeyd:zq", "//apikeyd...", kPort},
                    {"//apikeyd:12zq/keys", "//apikeyd...", kPort},
                    {"//h:1,apikeyd:zq/keys", "//h...", kPort},
                    {"//h:1:zq/keys", "//h...", kPort},
                    {"//[::1]:zq/keys", "//[...", kPort},
                    {"//h:%35432/keys", "//h...", kPort},
                    {"//apikeyd[:zq]/keys", "//apikeyd[...", kBrackets},
                    {"//[::1]zq/keys", "//[...", kBrackets},
                    {"//[::1/keys", "//[...", kBrackets},
                    {"//[h", "//[h", kBrackets},
                    {"//[]/keys", "//[]/keys", kBrackets}});
}

TEST(source_PostgresPlace, APasswordAsAParameterIsRefused) {
    for (const std::string name :
         {"password", "PassWord", "PASSWORD", "%70assword", "passwor%64", "%50ASSWORD", "sslpassword",
          "SSLPassword", "ssl%70assword", "oauth_client_secret", "scram_client_key", "SCRAM_server_key",
          // libpq has none of these; its error would be told together with the place.
          "pwd", "pass", "passwd", "passwort", "passphrase", "pgpassword"}) {
        const std::string shown = name.substr(0, name.find('%'));
        const std::string to_its_end = shown + (shown == name ? "" : "...");
        expect_refused({{"//h/keys?" + name + "=zq", "//h/keys?" + shown + "...", kSecret},
                        {"//h/keys?" + name + "=", "//h/keys?" + shown + "...", kSecret},
                        {"//h/keys?" + name, "//h/keys?" + to_its_end, kSecret},
                        {"//h/keys?" + name + "=zq=zq", "//h/keys?" + shown + "...", kSecret},
                        {"//h/keys?sslmode=require&" + name + "=zq&port=1", "//h/keys?sslmode...", kSecret},
                        {"//me@h?" + name + "=zq", "//me@h?" + shown + "...", kSecret}});
    }
    expect_refused({
        {"//h/keys?a=%7Azq%4&password=zq", "//h/keys?a...", kPercent},
        {"//h/keys?%70assword=zq%", "//h/keys?...", kPercent},
        {"//h/keys&password=zq", "//h/keys&password...", kNoParameter},
        {"//h&password=zq", "//h&password...", kNoParameter},
        {"//h;password=zq/keys", "//h;password...", kNoParameter},
        {"//me@h/keys;password=zq?sslmode=require", "//me@h/keys;password...", kNoParameter},
    });
}

TEST(source_PostgresPlace, WhatIsNoUriIsRefused) {
    const std::string begin = "does not begin with '//'; write postgresql://host/database";
    const auto byte = [](int at) {
        return "its byte " + std::to_string(at) +
               " is a space, a control character or not UTF-8; write %20 for a space";
    };
    expect_refused({
        {"keys", "keys", begin},
        {"/keys", "/keys", begin},
        {"host=h password=zq", "host...", begin},
        {"apikeyd:zq@h/keys", "apikeyd...", begin},
        {"apikeyd/zq@h/keys", "apikeyd...", begin},
        {"/apikeyd/zq@h/keys", "/apikeyd...", begin},
        {"%2F%2Fapikeyd%3Azq%40h", "...", begin},
        {" //apikeyd:zq@h/keys", "...", begin},
        {"//h/my keys", "//h/my...", byte(7)},
        {"//h/keys password=zq", "//h/keys...", byte(9)},
        {"//apikeyd:zq zq@h", "//apikeyd...", byte(13)},
        {"//h/keys\n", "//h/keys...", byte(9)},
        {std::string("//h/keys\0zq", 11), "//h/keys...", byte(9)},
        {"//h/\xFFzq", "//h/...", byte(5)},
        {"//h/\xE2\x80\xAEzq", "//h/...", byte(5)},  // turns the direction of what follows
        {"//h/k%", "//h/k...", kPercent},
        {"//h/k%2", "//h/k...", kPercent},
        {"//h/k%2g", "//h/k...", kPercent},
        {"//h/k%00", "//h/k...", kPercent},
        {"//h/keys?keys", "//h/keys?keys", kParameters},
        {"//h/keys?=zq", "//h/keys?...", kParameters},
        {"//h/keys?&sslmode=require", "//h/keys?&sslmode...", kParameters},
        {"//h/keys?port=1&&sslmode=require", "//h/keys?port...", kParameters},
        {"//h/keys?sslmode=require?x=zq", "//h/keys?sslmode...", kParameters},
    });
    for (const std::string place : {"//h/k%", "//h/k%00"}) {
        EXPECT_TRUE(refusal(place).ends_with("write %25 for '%' itself")) << refusal(place);
    }
    EXPECT_TRUE(refusal("//u:zq@h")
                    .ends_with("(~/.pgpass of the user that runs it, or passfile= in the URI), or use a "
                               "certificate (sslcert= and "
                               "sslkey=)"));
}

TEST(source_PostgresPlace, AKeyThatStandsInItByMistakeIsNotShown) {
    const std::string key = "ak_live_06CIOUagmsy4_AGMSYekqw28EKQWciou06CIOUag21XhSc";
    EXPECT_EQ(shown_place("//h/" + key), "//h/ak_live_06CIOUagmsy4_...");
    EXPECT_EQ(shown_place("//h/" + key + "?x"), "//h/ak_live_06CIOUagmsy4_...?x");
}

TEST(source_PostgresPlace, OneDatabaseIsOneWhoeverLogsInAndHowever) {
    const std::string place = "//db.example:5432/keys?sslmode=verify-full&connect_timeout=3";
    for (const std::string same : {
             "//db.example:5432/keys?sslmode=verify-full&connect_timeout=3",
             "//db.example:5432/keys",
             "//db.example:5432/keys?",
             "//other@db.example:5432/keys",
             "//@db.example:5432/keys",
             "//other%40tenant@db.example:5432/keys?sslmode=disable",
             "//db.example:5432/keys?user=other&passfile=/p&application_name=dbname%3Dx",
             "//db.example:5432/keys?connect_timeout=3&sslmode=verify-full",
         }) {
        EXPECT_TRUE(same_database(place, same)) << same;
        EXPECT_TRUE(same_database(same, place)) << same;
    }
    for (const std::string other : {
             "//db2.example:5432/keys",
             "//db.example:5433/keys",
             "//db.example:5432/keys2",
             "//db.example:5432/Keys",
             "//db.example:5432",
             "//db.example/keys",
             "//keys@db.example:5432",
             "//db.example:5432,b/keys",
             "//db.example:5432/keys?host=b",
             "//db.example:5432/keys?h%6Fst=b",
             "//db.example:5432/keys?hostaddr=127.0.0.2",
             "//db.example:5432/keys?port=1",
             "//db.example:5432/keys?dbname=b",
             "//db.example:5432/keys?sslmode=require&service=b",
         }) {
        EXPECT_FALSE(same_database(place, other)) << other;
        EXPECT_FALSE(same_database(other, place)) << other;
    }
}

TEST(source_PostgresPlace, ParametersAreAPartOfTheAddressByNameNotByOrder) {
    const std::string place = "//a@/?host=%2Frun&port=5433&dbname=keys";
    for (const std::string same : {"//b@/?dbname=keys&port=5433&host=%2Frun",
                                   "///?dbname=keys&sslmode=disable&port=5433&host=%2Frun&user=c",
                                   "///?%64bname=keys&por%74=5433&%68%6f%73%74=%2Frun",
                                   "///?port=1&host=%2Frun&port=5433&dbname=keys"}) {
        EXPECT_TRUE(same_database(place, same)) << same;
    }
    for (const std::string other :
         {"///?host=5433&port=%2Frun&dbname=keys", "///?hostaddr=%2Frun&port=5433&dbname=keys",
          "///?host=%2Frun&port=5433&dbname=keys2"}) {
        EXPECT_FALSE(same_database(place, other)) << other;
    }
    // The last of a name counts.
    EXPECT_FALSE(same_database("///keys?host=a&host=b", "///keys?host=b&host=a"));
}

TEST(source_PostgresPlace, WithoutADatabaseTheUserNamesIt) {
    EXPECT_TRUE(same_database("//a@h", "//a@h?sslmode=require"));
    EXPECT_TRUE(same_database("//a@h", "//h?user=a"));
    EXPECT_TRUE(same_database("//a@h/", "//a@h"));
    EXPECT_TRUE(same_database("//@h", "//h"));
    EXPECT_TRUE(same_database("//b@h?user=a", "//a@h"));
    EXPECT_FALSE(same_database("//a@h", "//b@h"));
    EXPECT_FALSE(same_database("//h?user=a", "//h?user=b"));
    EXPECT_FALSE(same_database("//h", "//b@h"));
    EXPECT_TRUE(same_database("//a@h?dbname=keys", "//b@h?dbname=keys"));
}

TEST(source_StoreName, AFileIsNamedByItsKindAndItsPath) {
    for (const auto& [text, kind, place] : {
             std::tuple("yaml:/etc/apikeyd/keys.yaml", StoreKind::kYaml, "/etc/apikeyd/keys.yaml"),
             {"yaml:keys.yaml", StoreKind::kYaml, "keys.yaml"},
             {"sqlite:/var/lib/apikeyd/keys.db", StoreKind::kSqlite, "/var/lib/apikeyd/keys.db"},
             {"sqlite:a:b c@d=e", StoreKind::kSqlite, "a:b c@d=e"},
             {"yaml:/srv//keys.yaml", StoreKind::kYaml, "/srv//keys.yaml"},
         }) {
        const Result<StoreName> named = store_named(text);
        ASSERT_TRUE(named) << text << ": " << named.error().message;
        EXPECT_EQ(named->kind, kind) << text;
        EXPECT_EQ(named->place, place);
        EXPECT_TRUE(named->is_file());
        EXPECT_EQ(named->text(), text);
        EXPECT_EQ(named->shown(), place);
    }
}

TEST(source_StoreName, WhatIsOfNoKindIsToldWithoutWhatMayBeAPassword) {
    const std::string want = " (want yaml:PATH, sqlite:PATH or postgresql://HOST/DATABASE)";
    for (const auto& [text, told] : {
             std::pair("", "''"),
             {"keys.yaml", "'keys.yaml'"},
             {"/etc/apikeyd/keys.yaml", "'/etc/apikeyd/keys.yaml'"},
             {"yaml:", "'yaml:'"},
             {"sqlite:", "'sqlite:'"},
             {"postgresql:", "'postgresql:'"},
             {"yaml", "'yaml'"},
             {"yml:/keys", "'yml:/keys'"},
             {"YAML:/keys", "'YAML:/keys'"},
             {" yaml:/keys", "' yaml:/keys'"},
             {"postgresq:l", "'postgresq:l'"},
             {"keys\n.yaml", "'keys\\u000A.yaml'"},
         }) {
        const Result<StoreName> named = store_named(text);
        ASSERT_FALSE(named) << text;
        EXPECT_EQ(named.error().message, told + want);
    }
    for (const std::string text : {
             "postgres://apikeyd:zq@h/keys",
             "POSTGRESQL://apikeyd:zq@h/keys",
             " postgresql://apikeyd:zq@h/keys",
             "postgres://h/keys?password=zq",
             "mysql://apikeyd:zq@h/keys",
             "//apikeyd:zq@h/keys",
             "postgres:apikeyd:zq@h/keys",
             "postgres:/apikeyd:zq@h/keys",
             "apikeyd:zq@h/keys",
             "apikeyd/zq@h:1521/keys",
             "apikeyd%3Azq%40h",
             "host=h password=zq",
             "password = 'zq'",
             "postgres:h?password=zq",
         }) {
        const Result<StoreName> named = store_named(text);
        ASSERT_FALSE(named) << text;
        EXPECT_EQ(named.error().message, "what may hold a password, so it is not shown" + want) << text;
    }
}

class source_SamePlace : public ::testing::Test {
  protected:
    void SetUp() override {
        char name[] = "/tmp/apikeyd-place-test.XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        directory_ = std::filesystem::canonical(name).string();
        std::filesystem::create_directory(directory_ + "/real");
        std::filesystem::create_directory_symlink("real", directory_ + "/link");
    }
    void TearDown() override { std::filesystem::remove_all(directory_); }

    [[nodiscard]] bool same(const std::string& a, const std::string& b) const {
        const bool one = same_place({StoreKind::kYaml, directory_ + a}, {StoreKind::kYaml, directory_ + b});
        EXPECT_EQ(one, same_place({StoreKind::kSqlite, directory_ + b}, {StoreKind::kYaml, directory_ + a}))
            << "one path is one place, whatever it is said to hold";
        return one;
    }

    std::string directory_;
};

TEST_F(source_SamePlace, FilesByWhereTheirPathsLead) {
    EXPECT_TRUE(same("/real/keys", "/real/keys"));
    EXPECT_TRUE(same("/real/keys", "/link/keys")) << "to none";
    EXPECT_TRUE(same("/real/keys", "//real/./../link/keys"));
    EXPECT_FALSE(same("/real/keys", "/real/keys2"));
    EXPECT_FALSE(same("/real/keys", "/keys"));
    std::filesystem::create_symlink("real/keys", directory_ + "/keys");
    EXPECT_TRUE(same("/keys", "/link/keys")) << "a link to what is not there yet";
    EXPECT_FALSE(same("/keys", "/link/keys2"));
    const int fd = open((directory_ + "/real/keys").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    ASSERT_GE(fd, 0);
    close(fd);
    EXPECT_TRUE(same("/keys", "/link/keys"));
    EXPECT_TRUE(same("/real/keys", "/link/keys"));
}

TEST_F(source_SamePlace, WhatLeadsNowhereIsNotAllOnePlace) {
    std::filesystem::create_symlink("loop1", directory_ + "/loop1");
    std::filesystem::create_symlink("loop2", directory_ + "/loop2");
    EXPECT_FALSE(same("/loop1", "/loop2"));
    EXPECT_FALSE(same("/loop1", "/real/keys"));
    EXPECT_TRUE(same("/loop1", "/loop1"));
    const std::string long_name(300, 'n');
    EXPECT_FALSE(same("/" + long_name, "/" + long_name + "n"));
    EXPECT_FALSE(same("/real/keys/x", "/link/keys/y"));
}

TEST_F(source_SamePlace, ARelativePathLeadsFromTheWorkingDirectory) {
    const auto before = std::filesystem::current_path();
    std::filesystem::current_path(directory_ + "/link");
    EXPECT_TRUE(same_place({StoreKind::kYaml, "keys"}, {StoreKind::kYaml, directory_ + "/real/keys"}));
    EXPECT_TRUE(same_place({StoreKind::kYaml, "../keys"}, {StoreKind::kYaml, directory_ + "/keys"}));
    EXPECT_FALSE(same_place({StoreKind::kYaml, "keys"}, {StoreKind::kYaml, directory_ + "/keys"}));
    std::filesystem::current_path(before);
}

TEST_F(source_SamePlace, AFileIsNoDatabase) {
    const StoreName database{StoreKind::kPostgres, "//h/keys"};
    for (const StoreKind kind : {StoreKind::kYaml, StoreKind::kSqlite}) {
        EXPECT_FALSE(same_place(database, {kind, "//h/keys"}));
        EXPECT_FALSE(same_place({kind, "//h/keys"}, database));
    }
    EXPECT_TRUE(same_place(database, {StoreKind::kPostgres, "//me@h/keys?sslmode=require"}));
    EXPECT_FALSE(same_place(database, {StoreKind::kPostgres, "//h/keys2"}));
}

}  // namespace
}  // namespace apikeyd
