#include <apikey/apikey.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char** argv) {
    apikey_options options = {.size = sizeof options, .directory = argc > 1 ? argv[1] : NULL};
    apikey_client* client;
    apikey_verdict verdict;
    char key[APIKEY_KEY_MAX + 2] = "";

    apikey_open(&options, &client);
    if (client == NULL || fgets(key, sizeof key, stdin) == NULL)
        return 2;
    apikey_validate(client, key, strcspn(key, "\n"), &verdict);
    puts(apikey_code_name(verdict.code));
    apikey_close(client);
    return verdict.code == APIKEY_VALID ? 0 : 1;
}
