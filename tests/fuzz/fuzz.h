/* What the fuzz targets share. Each is one file with LLVMFuzzerTestOneInput; under the fuzz preset libFuzzer
 * drives it, else replay.c runs the corpus through it. */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <rpcrew/impl/message.h>
#include <rpcrew/json.h>

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Unlike assert it is there in every build. */
#define REQUIRE(condition)                                                          \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                \
        }                                                                           \
    } while (0)

static inline crew_string fuzz_string(const uint8_t *data, size_t size)
{
    return (crew_string){ (const char *)data, size };
}

/* Whether both are the same JSON: whole doubles are integers there. */
static inline bool fuzz_same(const crew_value *a, const crew_value *b)
{
    crew_bytes first, second;
    REQUIRE(crew_json_encode(a, CREW_JSON_COMPACT, &first) == CREW_OK);
    REQUIRE(crew_json_encode(b, CREW_JSON_COMPACT, &second) == CREW_OK);
    bool same =
        crew_string_equal((crew_string){ first.data, first.size }, (crew_string){ second.data, second.size });
    crew_bytes_free(&first);
    crew_bytes_free(&second);
    return same;
}

#endif
