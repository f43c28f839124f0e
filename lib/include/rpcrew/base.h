/* Strings, bytes and limits: the words that every other header uses. */
#ifndef RPCREW_BASE_H
#define RPCREW_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CREW_API          __attribute__((visibility("default")))
#define CREW_NODISCARD    __attribute__((warn_unused_result))
#define CREW_PRINTF(f, a) __attribute__((format(printf, f, a)))

#ifdef __cplusplus
extern "C" {
#endif

/* Borrowed bytes of known length: UTF-8 text unless said otherwise, NUL allowed inside. */
typedef struct crew_string {
    const char *data;
    size_t size;
} crew_string;

/* For printf's "%.*s". */
#define CREW_STR(s) (int)(s).size, (s).data

static inline crew_string crew_str(const char *text)
{
    crew_string s = { text, text ? strlen(text) : 0 };
    return s;
}

static inline bool crew_string_equal(crew_string a, crew_string b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* Owned bytes, from malloc. All zero is empty and owns nothing. */
typedef struct crew_bytes {
    void *data;
    size_t size;
} crew_bytes;

/* Frees the bytes and empties *bytes. NULL and empty are fine. */
CREW_API void crew_bytes_free(crew_bytes *bytes);

/* How much of an error a peer can read, where the protocol leaves that open. MessagePack-RPC: [code,
 * message], a text, [code, message, data], or [0, message], as Neovim shows it. JSON-RPC 1.0: an object
 * as 2.0 has it, or with CREW_ERRORS_STRING a text; a result of null is then {}, since what reads only texts
 * (Go's net/rpc/jsonrpc) takes null for a failure. */
typedef enum crew_wire_errors {
    CREW_ERRORS_PAIR,
    CREW_ERRORS_STRING,
    CREW_ERRORS_DATA,
    CREW_ERRORS_NVIM
} crew_wire_errors;

/* What one message may be at most; a zero field means its default. A message beyond a limit gets the
 * protocol's error, and the service goes on. */
typedef struct crew_limits {
    size_t message_bytes; /* 16 MiB, at most 1 GiB */
    size_t string_bytes;  /* of one string on the wire (key, bytes and ext as well); the message's limit */
    uint32_t items;       /* of one array, members of one object; as many as the message can hold */
    uint32_t depth;       /* arrays and objects inside one another; 128, at most 1,024 */
    uint32_t batch;       /* calls in one batch; 1,000 */
} crew_limits;

#ifdef __cplusplus
}
#endif
#endif
