// What libpq hands out, freed by whoever holds it. Private to daemon/postgres.

#pragma once

#include <libpq-fe.h>

#include <memory>

namespace apikeyd {

struct PqDeleter {
    void operator()(PGconn* connection) const { PQfinish(connection); }
    void operator()(PGresult* result) const { PQclear(result); }
    void operator()(PQconninfoOption* options) const { PQconninfoFree(options); }
    void operator()(PGnotify* notification) const { PQfreemem(notification); }
    void operator()(char* memory) const { PQfreemem(memory); }
    void operator()(unsigned char* memory) const { PQfreemem(memory); }
};

template <typename T>
using PqPtr = std::unique_ptr<T, PqDeleter>;

inline constexpr Oid kByteaOid = 17;  // pg_type.dat; never changes

}  // namespace apikeyd
