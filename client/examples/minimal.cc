#include <apikey/apikey.hpp>
#include <iostream>
#include <string>

int main(int, char** argv) {
    apikey_options options{};
    options.size = sizeof options;
    options.directory = argv[1];  // NULL: the default
    apikey::Client client(options);

    std::string key;
    std::getline(std::cin, key);
    const apikey_verdict verdict = client.validate(key);
    std::cout << apikey_code_name(verdict.code) << "\n";
    if (const auto who = client.describe(verdict)) {
        std::cout << who->name << ", " << who->owner << ", " << who->environment << "\n";
    }
    return verdict.code == APIKEY_VALID ? 0 : 1;
}
