/* libapikey: validates API keys against the table that apikeyd keeps in shared memory on this host.
 *
 * Once a client is attached, validating makes no syscall, takes no lock and allocates nothing
 * (apikey_validate() says when it does). The library starts no thread, installs no signal handler, prints
 * nothing, keeps no descriptor open and needs nothing but libc.
 *
 * Thread safety: every function but apikey_close() may be called from any thread at any time with the same
 * client, and in a child after fork(). None is async-signal-safe.
 *
 * Structs that the library fills or reads start with `size`: set it to sizeof, and a newer library keeps to
 * what your header knew.
 */
#ifndef APIKEY_APIKEY_H
#define APIKEY_APIKEY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define APIKEY_API __attribute__((visibility("default")))

/** Shortest and longest key that is looked up, in bytes; anything shorter is APIKEY_NOT_FOUND, or when empty
 * APIKEY_MALFORMED as anything longer. */
#define APIKEY_KEY_MIN 16
#define APIKEY_KEY_MAX 512
/** Characters of a key's public id. */
#define APIKEY_ID_LENGTH 12

/** The answer about one key. The same names stand in the tool, in logs and in usage. */
typedef enum apikey_code {
    APIKEY_VALID = 0,     /**< all checks passed, and counted */
    APIKEY_MALFORMED = 1, /**< native form with a wrong checksum, empty, or too long */
    APIKEY_NOT_FOUND = 2, /**< no such key */
    APIKEY_REVOKED = 3,
    APIKEY_DISABLED = 4,
    APIKEY_EXPIRED = 5,
    APIKEY_IP_NOT_ALLOWED =
        6, /**< the key is bound to addresses, and this one is none of them or not given */
    APIKEY_INSUFFICIENT_PERMISSIONS = 7, /**< it lacks a scope, or is of another environment */
    APIKEY_RATE_LIMITED = 8,
    APIKEY_USAGE_EXCEEDED = 9, /**< a quota */
    APIKEY_UNAVAILABLE = 10, /**< no table, too stale under the chosen policy, or limits cannot be metered */
    /* Never answered: what limits in shadow mode would have refused is counted under these. */
    APIKEY_SHADOW_RATE_LIMITED = 11,
    APIKEY_SHADOW_USAGE_EXCEEDED = 12
} apikey_code;

/** How an attempt to attach ended. */
typedef enum apikey_result {
    APIKEY_OK = 0,
    APIKEY_WAITING = 1,       /**< no daemon has been here yet; attaching is retried */
    APIKEY_NOT_PERMITTED = 2, /**< not in the clients' group */
    APIKEY_NOT_A_DIRECTORY = 3,
    APIKEY_FOREIGN_OWNER = 4,
    APIKEY_UNSAFE_MODE = 5,
    APIKEY_NOT_A_FILE = 6,
    APIKEY_TRUNCATED = 7,
    APIKEY_BAD_MAGIC = 8,
    APIKEY_ABI_MISMATCH = 9, /**< library and daemon are of different versions */
    APIKEY_LAYOUT_MISMATCH = 10,
    APIKEY_BAD_GEOMETRY = 11,
    APIKEY_SUPERSEDED = 12,
    APIKEY_NO_DESCRIPTORS = 13, /**< EMFILE or ENFILE; what was attached goes on serving */
    APIKEY_NO_MEMORY = 14,
    APIKEY_IO_ERROR = 15,
    APIKEY_BAD_ARGUMENT = 16,
    APIKEY_BAD_EXPRESSION = 17, /**< of scopes: a name, AND, OR or a parenthesis is not where it belongs */
    APIKEY_UNKNOWN_SCOPE = 18   /**< of an expression: no scope of this name is defined */
} apikey_result;

/** What to answer when the daemon's heartbeat is older than `stale_after_ms`. */
typedef enum apikey_stale_policy {
    APIKEY_STALE_SERVE = 0, /**< serve, with APIKEY_FLAG_STALE set */
    APIKEY_STALE_DENY = 1   /**< APIKEY_UNAVAILABLE */
} apikey_stale_policy;

/** What to answer for a key with limits when the meters cannot be written. */
typedef enum apikey_metering {
    APIKEY_METERING_REQUIRED = 0, /**< APIKEY_UNAVAILABLE */
    APIKEY_METERING_OPTIONAL = 1  /**< pass it without, with APIKEY_FLAG_NOT_METERED set */
} apikey_metering;

/** How to open. Zeroed fields mean the default. */
typedef struct apikey_options {
    size_t size;           /**< sizeof(apikey_options) */
    const char* directory; /**< base directory; NULL: /run/apikeyd, and while there is no daemon there and the
                              caller is not root, /dev/shm/apikeyd-<uid> */
    const char* instance;  /**< NULL: "default" */
    apikey_stale_policy stale_policy;
    uint32_t stale_after_ms; /**< 0: 10000 */
    uint32_t check_owner;    /**< not 0: the directory must belong to `expected_owner`. The default directory
                                under    /dev/shm must belong to the caller in any case. */
    uint32_t expected_owner; /**< uid */
    apikey_metering metering;
    const char* required_environment; /**< "live": keys of others lack permissions; NULL: any */
} apikey_options;

/** Flags of a verdict. */
#define APIKEY_FLAG_STALE                                                              \
    1u /**< the daemon has not been heard of for longer than stale_after_ms, or serves \
          in another directory that cannot be mapped now */
#define APIKEY_FLAG_NOT_COUNTED 2u /**< the counters may not be written by this process */
#define APIKEY_FLAG_NOT_METERED 4u /**< nor the meters: limits were not looked at */
#define APIKEY_FLAG_SHADOW 8u      /**< a limit in shadow mode would have refused */

/** Longest name of a limit, with its NUL. */
#define APIKEY_LIMIT_NAME_MAX 16

/** One limit after a request: the one that refused it, else the one with the least left. One in shadow mode
 * only where the key has no other of the kind. */
typedef struct apikey_limit {
    char name[APIKEY_LIMIT_NAME_MAX]; /**< "": no limit of this kind, or refused for something else */
    uint64_t allowance;               /**< requests: of a rate its burst, of a quota all of a period */
    uint64_t remaining;               /**< requests */
    uint64_t reset_ms;                /**< from now until all of the allowance is there again */
    uint64_t retry_after_ms; /**< when this refused, or would have but for shadow mode: from now, before
                                  which it surely refuses again; else 0.
                                  UINT64_MAX: it always will, the cost is more than the allowance */
} apikey_limit;

/** What a request left of the key's limits. */
typedef struct apikey_limits {
    size_t size; /**< sizeof(apikey_limits) */
    apikey_limit rate;
    apikey_limit quota;
} apikey_limits;

/** What was decided about one key. Plain data; no pointer into shared memory. */
typedef struct apikey_verdict {
    apikey_code code;
    uint32_t flags;                    /**< APIKEY_FLAG_* */
    int64_t expires_at;                /**< Unix seconds; 0: never, or no such key */
    char key_id[APIKEY_ID_LENGTH + 4]; /**< NUL-terminated; empty for keys not of the native form */
    uint64_t ref[4];                   /**< for apikey_describe() */
} apikey_verdict;

/** An IPv6 address, or an IPv4 one as ::ffff:a.b.c.d. In the order of the network. */
typedef struct apikey_address {
    unsigned char bytes[16];
} apikey_address;

/** A required expression of scopes, see apikey_scopes_compile(). */
typedef struct apikey_scopes apikey_scopes;

/** What a request asks for, beyond the key. Start from APIKEY_REQUEST_INIT. */
typedef struct apikey_request {
    size_t size;                 /**< sizeof(apikey_request) */
    const apikey_scopes* scopes; /**< NULL: none */
    const apikey_address*
        address;           /**< of who sent it; NULL: not known, and a key bound to addresses is refused */
    uint32_t cost;         /**< requests that this one counts as, in limits and quotas; not 0 */
    uint32_t reserved;     /**< 0 */
    apikey_limits* limits; /**< out; its size must be set. NULL: not wanted */
} apikey_request;
#define APIKEY_REQUEST_INIT \
    { sizeof(apikey_request), NULL, NULL, 1, 0, NULL }

/** Strings about a key, copied into the caller's buffer. */
typedef struct apikey_description {
    size_t size;        /**< sizeof(apikey_description) */
    const char* key_id; /**< all point into the buffer, or to "" unless 1 was answered; never NULL */
    const char* owner;
    const char* environment;
    const char* name;
    const char* metadata; /**< JSON object, or "" */
    int64_t created_at;   /**< Unix seconds; 0: unknown */
} apikey_description;
/** A buffer of this many bytes is always large enough. */
#define APIKEY_DESCRIPTION_MAX 5376

/** What a client is attached to. */
typedef struct apikey_status_info {
    size_t size;            /**< sizeof(apikey_status_info) */
    apikey_result attached; /**< how the last attempt to attach ended */
    const char* text;       /**< a sentence for people; static storage */
    uint32_t generation;    /**< 0: none */
    uint32_t flags;         /**< APIKEY_FLAG_* as the next verdict would have them */
    uint64_t keys;
    uint64_t position;    /**< loads and changes of the source applied by the daemon */
    uint64_t fingerprint; /**< of the source's content in force */
    uint64_t heartbeat_age_ms;
    const char* kernel; /**< SHA-256 kernel in use */
} apikey_status_info;

typedef struct apikey_client apikey_client;

/** Opens a client of one instance.
 *
 * Opening before there is a daemon succeeds with APIKEY_WAITING: validation answers APIKEY_UNAVAILABLE, and
 * attaching is retried by validation (at most every 100 ms) and by apikey_refresh().
 *
 * \param options NULL for all defaults.
 * \param client  out; set to a client for every result but APIKEY_BAD_ARGUMENT and APIKEY_NO_MEMORY (then
 * NULL). \return how attaching ended. Any other than APIKEY_OK leaves a client that answers
 * APIKEY_UNAVAILABLE and retries.
 */
APIKEY_API apikey_result apikey_open(const apikey_options* options, apikey_client** client);

/** Decides whether `key` may be used, and counts the decision.
 *
 * Makes no syscall, takes no lock and allocates nothing once the client is attached, but for two moments: the
 * first call after the daemon published a new generation maps that one; and while the daemon has been silent
 * for stale_after_ms, one call in two seconds looks whether another daemon serves under the directory's name.
 * A thread's first call may allocate, where the process has many pthread keys (pthread_setspecific()).
 * A host that calls apikey_refresh() elsewhere once a second relieves its requests of both, but for one that
 * would be refused in between: a key that this generation does not accept is looked for in the newer one.
 *
 * \param key     the presented bytes, not NUL-terminated; not kept beyond this call.
 * \param key_len in bytes.
 * \param verdict out; every field is set whatever the answer.
 * \return verdict->code.
 */
APIKEY_API apikey_code apikey_validate(apikey_client* client, const char* key, size_t key_len,
                                       apikey_verdict* verdict);

/** The same for a request that asks for more: scopes, an address, a cost. A key's environment is
 * checked first, then the address, the scopes, and its limits in its plan's order, its own before its
 * owner's; limits and quotas are spent only by a request that passes all else, all of them or none.
 *
 * \return APIKEY_OK, and the answer in `verdict`; or APIKEY_BAD_ARGUMENT for a cost of 0, or a request or its
 * limits without their size: then nothing was looked at or spent, and verdict->code is APIKEY_UNAVAILABLE.
 */
APIKEY_API apikey_result apikey_validate_request(apikey_client* client, const char* key, size_t key_len,
                                                 const apikey_request* request, apikey_verdict* verdict);

/** Compiles an expression of scopes, as `(reports.read OR reports.admin) AND billing.read`: names, AND, OR,
 * parentheses; AND binds closer. A name is granted by itself and by every branch above it (`reports.*`, `*`);
 * `reports.*` asks for that branch. At most 32 names.
 *
 * Once per client and expression; it holds across generations, whatever scopes are defined later. Any number
 * of threads may use it. Free it after its last use, before or after the client.
 *
 * \param error_offset out, may be NULL: where in the expression the first error stands, in bytes.
 * \return APIKEY_OK; APIKEY_BAD_EXPRESSION, APIKEY_UNKNOWN_SCOPE (the table that is attached defines no such
 * scope; while there is none every name is taken), APIKEY_NO_MEMORY or APIKEY_BAD_ARGUMENT, with *scopes
 * NULL.
 */
APIKEY_API apikey_result apikey_scopes_compile(apikey_client* client, const char* expression,
                                               apikey_scopes** scopes, size_t* error_offset);
APIKEY_API void apikey_scopes_free(apikey_scopes* scopes);

/** Reads `192.0.2.7`, `2001:db8::7` or `::ffff:192.0.2.7`. Makes no syscall.
 *
 * \return APIKEY_OK, or APIKEY_BAD_ARGUMENT for a text that is no address; then *address is all zeroes.
 */
APIKEY_API apikey_result apikey_address_parse(const char* text, size_t text_len, apikey_address* address);

/** One presented key of a batch. */
typedef struct apikey_key {
    const char* data;
    size_t len;
} apikey_key;

/** Decides `count` keys at once, each a request of cost 1 that asks for nothing more: the same answers and
 * counts as `count` calls of apikey_validate(), at up to three times the throughput, since memory and hashing
 * overlap. Any size; from 8 on it pays in full.
 *
 * \return how many are APIKEY_VALID.
 */
APIKEY_API size_t apikey_validate_many(apikey_client* client, const apikey_key* keys, size_t count,
                                       apikey_verdict* verdicts);

/** Copies what is known of a verdict's key into `buffer`.
 *
 * \param verdict     as apikey_validate() filled it, for any code that names a known key.
 * \param buffer      receives the strings; APIKEY_DESCRIPTION_MAX always suffices.
 * \param description out; its size must be set.
 * \return 1 when the key is known, 0 when it is not (any more), -1 when the buffer is too small.
 */
APIKEY_API int apikey_describe(apikey_client* client, const apikey_verdict* verdict, char* buffer,
                               size_t buffer_bytes, apikey_description* description);

/** Attaches to what the daemon last published, so that requests need not pay for it. For housekeeping, about
 * once a second: for 2.5 s after each call valid keys are answered from what is attached. Also finds a daemon
 * that was started anew with another control file.
 *
 * \return how attaching ended; on failure what was attached goes on serving.
 */
APIKEY_API apikey_result apikey_refresh(apikey_client* client);

/** Tells what the client is attached to. Makes no syscall. */
APIKEY_API void apikey_status(apikey_client* client, apikey_status_info* info);

/** Unmaps and frees. No other thread may be in a call with this client. NULL is allowed. */
APIKEY_API void apikey_close(apikey_client* client);

/** The code's name, as `NOT_FOUND`; static storage, "UNKNOWN" for what is none. */
APIKEY_API const char* apikey_code_name(apikey_code code);

/** A sentence about a result; static storage. */
APIKEY_API const char* apikey_result_text(apikey_result result);

#ifdef __cplusplus
}
#endif
#endif
